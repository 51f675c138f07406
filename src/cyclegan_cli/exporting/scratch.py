"""A folder for what other libraries write before it is taken over."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cyclegan_cli.errors import OutputError


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder; nothing else may be written while it is used.

    Raises:
        OutputError: It cannot be written to: the user named another place, and must hear which.
    """
    place = tempfile.gettempdir()
    try:
        with tempfile.TemporaryDirectory(prefix="cyclegan-") as folder:
            yield Path(folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"cannot write to the folder for temporary files, {place}: {reason}",
            "Free some space there, or name another folder with the environment variable TMPDIR.",
        ) from error
