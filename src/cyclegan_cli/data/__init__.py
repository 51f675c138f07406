"""Pictures on disk to tensors, and back."""
