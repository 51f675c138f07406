"""Translate videos: decode, translate and encode frame by frame, in segments."""
