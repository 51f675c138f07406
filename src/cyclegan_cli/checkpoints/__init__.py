"""Models and training states to safetensors files, and back."""
