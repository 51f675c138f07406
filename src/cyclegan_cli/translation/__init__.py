"""Images through one generator."""
