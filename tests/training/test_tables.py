import csv

import pytest

from cyclegan_cli.errors import OutputError
from cyclegan_cli.training.callbacks.logging import LATER_COLUMNS, METRICS_COLUMNS, StepTable


def table(path, steps_done: int) -> StepTable:
    return StepTable(path, METRICS_COLUMNS, steps_done)


def row(step: int) -> dict[str, float]:
    return {name: float(i) for i, name in enumerate(METRICS_COLUMNS)} | {"step": step}


def steps_in(path) -> list[int]:
    with path.open(newline="") as stream:
        return [int(row["step"]) for row in csv.DictReader(stream)]


def test_rows_are_written_at_once(tmp_path):
    metrics = table(tmp_path / "metrics.csv", 0)
    metrics.append(row(10))
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        [found] = csv.DictReader(stream)
    assert {name: float(value) for name, value in found.items()} == row(10)


def test_resume_drops_rows_after_checkpoint(tmp_path):
    metrics = table(tmp_path / "metrics.csv", 0)
    for step in (10, 20, 30):
        metrics.append(row(step))
    table(tmp_path / "metrics.csv", 20).append(row(31))
    assert steps_in(tmp_path / "metrics.csv") == [10, 20, 31]


def test_steps_beyond_a_million_are_whole_numbers(tmp_path):
    path = tmp_path / "metrics.csv"
    table(path, 0).append(row(1_234_567))
    assert steps_in(path) == [1_234_567]
    path.write_text(path.read_text().replace("1234567", "1e+06"))  # What 0.1.0 once wrote.
    table(path, 2_000_000).append(row(2_000_001))


@pytest.mark.parametrize("tail", ["20,1", "20", "20,x,y\n", ",\n", "\0\n"])
def test_incomplete_row_is_dropped(tmp_path, tail):
    path = tmp_path / "metrics.csv"
    table(path, 0).append(row(10))
    path.write_text(path.read_text() + tail)
    table(path, 50).append(row(60))
    assert steps_in(path) == [10, 60]


def test_missing_folder_is_an_output_error(tmp_path):
    (tmp_path / "run").mkdir()
    metrics = table(tmp_path / "run" / "metrics.csv", 0)
    metrics.path.unlink()
    metrics.path.parent.rmdir()
    with pytest.raises(OutputError, match=r"cannot write .*metrics\.csv: No such file"):
        metrics.append(row(1))


def test_rows_of_an_older_table_are_kept(tmp_path):
    path = tmp_path / "metrics.csv"
    earlier = [name for name in METRICS_COLUMNS if name not in LATER_COLUMNS]
    values = ["10" if name == "step" else "1" for name in earlier]
    path.write_text(",".join(earlier) + "\n" + ",".join(values) + "\n")
    table(path, 50).append(row(60))
    assert steps_in(path) == [10, 60]
    with path.open(newline="") as stream:
        assert [found["skipped_steps"] == "" for found in csv.DictReader(stream)] == [True, False]
