"""TensorBoard event files; needs the extra ``tensorboard``."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from cyclegan_cli import files
from cyclegan_cli.errors import OutputError
from cyclegan_cli.models.cyclegan import LOSS_NAMES
from cyclegan_cli.training.callbacks.base import TrainingCallback, TrainingRun
from cyclegan_cli.training.callbacks.logging import GRADIENT_COLUMNS

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

EVENTS_FOLDER = "tensorboard"
# TensorBoard reads files with this in their names, in the order of the names.
EVENTS_NAME = "events.out.tfevents."


class TensorBoardLogger(TrainingCallback):
    """Writes losses, validation results and sample grids as events, flushed at once.

    torch's ``SummaryWriter`` is not used: it writes in a thread, so that a full disk would fail
    there and not in the training.
    """

    stream: BinaryIO | None = None

    def on_train_begin(self, run: TrainingRun) -> None:
        """Start a file that replaces the events after the resumed step.

        Raises:
            OutputError: The file cannot be written.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog  # noqa: PLC0415 an extra

        folder = run.plan.run_dir / EVENTS_FOLDER
        files.make_folder(folder)
        # Numbered, because clocks may go back.
        numbers = [path.suffix[1:] for path in folder.glob(f"{EVENTS_NAME}*")]
        number = 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
        self.path = folder / f"{EVENTS_NAME}{number:06d}"
        with self._as_output_error():
            self.stream = self.path.open("xb")
        first = run.plan.first_step + 1
        self._write(first, file_version="brain.Event:2")
        self._write(first, session_log=SessionLog(status=SessionLog.START))

    def on_log(self, run: TrainingRun, row: dict[str, Any]) -> None:
        losses = {f"loss/{name}": row[name] for name in LOSS_NAMES}
        rates = {name: row[name] for name in ("learning_rate", "images_per_second")}
        gradients = {f"gradients/{name}": row[name] for name in GRADIENT_COLUMNS}
        self._write_scalars(int(row["step"]), losses | rates | gradients)

    def on_validation(self, run: TrainingRun, row: dict[str, float]) -> None:
        measures = {name: row[name] for name in row if name not in ("step", "seconds")}
        self._write_scalars(int(row["step"]), {f"quality/{k}": v for k, v in measures.items()})

    def on_samples(self, run: TrainingRun, path: Path) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 an extra

        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            width, height = opened.size
        image = Summary.Image(
            width=width, height=height, colorspace=3, encoded_image_string=content
        )
        self._write(run.step, summary=Summary(value=[Summary.Value(tag="samples", image=image)]))

    def close(self, run: TrainingRun) -> None:
        if self.stream:
            self.stream.close()

    def _write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 an extra

        value = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step, summary=Summary(value=value))

    def _write(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415 an extra
        from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

        event: Event = Event(step=step, wall_time=time.time(), **content)
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        assert self.stream, "on_train_begin opens it"
        with self._as_output_error():
            # In one write: readers stop at an incomplete record.
            self.stream.write(record.getvalue())
            self.stream.flush()

    @contextmanager
    def _as_output_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
