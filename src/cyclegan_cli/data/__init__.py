"""Images on disk to tensors, and back."""
