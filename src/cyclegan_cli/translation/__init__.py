"""Pictures through one generator."""
