"""Parsing of option values."""

import pytest

from cyclegan_cli.config import parse_memory
from cyclegan_cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4GB", 4_000_000_000),
        ("4 gb", 4_000_000_000),
        ("4G", 4_000_000_000),
        ("1.5GiB", 1_610_612_736),
        ("800MB", 800_000_000),
        ("65536", 65536),
    ],
)
def test_parse_memory(text, expected):
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1GB", "4XB", "GB", "0", "nan", "1e9", "4 G B"])
def test_parse_memory_refuses_invalid_sizes(text):
    with pytest.raises(UsageError, match="--max-memory must be a size like 4GB or 800MB, found"):
        parse_memory(text)
