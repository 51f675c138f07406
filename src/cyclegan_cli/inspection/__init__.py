"""What a file or folder is, in facts; checkpoints without torch, numpy or Pillow."""

from cyclegan_cli.inspection.describing import describe
from cyclegan_cli.inspection.summary import SCHEMA, Request, Summary

__all__ = ["SCHEMA", "Request", "Summary", "describe"]
