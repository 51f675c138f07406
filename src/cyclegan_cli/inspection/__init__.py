"""Descriptions of files and folders. Those of safetensors checkpoints load no torch or numpy."""

from cyclegan_cli.inspection.describing import describe
from cyclegan_cli.inspection.summary import SCHEMA, Request, Summary

__all__ = ["SCHEMA", "Request", "Summary", "describe"]
