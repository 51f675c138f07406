"""Translate images with a trained generator."""
