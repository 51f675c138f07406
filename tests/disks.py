"""Disks that are soon full."""

import shutil
import subprocess
from pathlib import Path

import pytest

# The first is for any user, where the system lets them; the second for root.
NAMESPACES = ["unshare", "--map-root-user", "--mount"], ["unshare", "--mount"]


def small_disk(folder: Path, kibibytes: int) -> list[str]:
    """What to put before a command so that it sees a small disk in a folder, as nothing else does.

    The test is skipped where the system mounts nothing for us.
    """
    mount = f'mount -t tmpfs -o size={kibibytes}k none "{folder}" && exec "$@"'
    for namespace in NAMESPACES if shutil.which("unshare") else ():
        start = [*namespace, "sh", "-c", mount, "sh"]
        if subprocess.run([*start, "true"], capture_output=True).returncode == 0:
            return start
    pytest.skip("no file system can be mounted here")
