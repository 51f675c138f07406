"""Models for other runtimes: one file a format, each verified before it is left."""
