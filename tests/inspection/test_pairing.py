"""Translations are matched to other images by the names that the tool gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyclegan_cli.errors import DataError
from cyclegan_cli.inspection.pairing import match_names

OUT, TRUTH = Path("out"), Path("truth")


def matched(names: list[str], others: list[str]) -> dict[str, str]:
    found = match_names([OUT / one for one in names], OUT, [TRUTH / one for one in others], TRUTH)
    return {
        str(image.relative_to(OUT)): str(other.relative_to(TRUTH)) for image, other in found.items()
    }


@pytest.mark.parametrize(
    "name", ["photo.jpg", "photo.png", "photo_night.jpg", "photo-2.webp", "photo_late_night.png"]
)
def test_names_of_translations(name: str) -> None:
    assert matched([name], ["photo.jpg", "other.jpg"]) == {name: "photo.jpg"}


def test_subfolders_are_kept() -> None:
    found = matched(["a/1_night.png", "b/1_night.png"], ["a/1.jpg", "b/1.jpg", "1.jpg"])
    assert found == {"a/1_night.png": "a/1.jpg", "b/1_night.png": "b/1.jpg"}


def test_the_suffix_is_the_same_for_all() -> None:
    found = matched(["a_1.png", "a_2.png", "a_3.png"], ["a.png", "a_1.png", "a_2.png"])
    assert found == {"a_1.png": "a_1.png", "a_2.png": "a_2.png"}
    assert matched(["photo10.png"], ["photo1.png"]) == {}


def test_names_with_dots() -> None:
    assert matched(["a.b_night.png", "a.c_night.png"], ["a.b.jpg", "a.c.jpg"]) == {
        "a.b_night.png": "a.b.jpg",
        "a.c_night.png": "a.c.jpg",
    }


def test_ambiguous_ground_truth_is_refused() -> None:
    with pytest.raises(DataError, match="truth/a.jpg and truth/a.png have the same name"):
        matched(["a.png"], ["a.jpg", "a.png"])
