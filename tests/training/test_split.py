from pathlib import Path

import pytest

from cyclegan_cli.training.split import relative_name


@pytest.mark.parametrize(
    ("path", "folder", "name"),
    [
        ("/images/day/a/1.png", "/images/day", b"a/1.png"),
        ("/images/day.png", "/", b"images/day.png"),
        ("day/1.png", "day", b"1.png"),
        ("..png", ".", b"..png"),
        ("day/1.png", None, b"day/1.png"),
        ("/d/\udcff.png", "/d", b"\xff.png"),
    ],
)
def test_relative_name(path, folder, name):
    assert relative_name(Path(path), Path(folder) if folder else None) == name
