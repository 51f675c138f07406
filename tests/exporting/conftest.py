"""Exports of the tiny model, which take seconds: each is made once per session."""

from collections.abc import Callable
from typing import Any

import pytest

from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.exporting.exporter import Report, export
from cyclegan_cli.exporting.job import FORMATS, Job

MakeExport = Callable[..., Report]


@pytest.fixture(scope="module", autouse=True)
def _graphs(traced_once):
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    """``exported("onnx", precision="fp16", ...)``: the report of an export from A to B."""
    made: dict[Any, Report] = {}

    def make(name, **options):
        options = {"precision": "fp32"} | options
        key = (name, *sorted(options.items()))
        if key not in made:
            target = tmp_path_factory.mktemp("exported") / f"x{FORMATS[name].extensions[0]}"
            values = {"directions": ("a2b",), "output": target, "format": FORMATS[name]} | options
            made[key] = export(Job(read_checkpoint(checkpoint), **values))
        return made[key]

    return make
