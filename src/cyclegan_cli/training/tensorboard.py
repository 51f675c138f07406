"""The curves and samples of a run for TensorBoard, an extra."""

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
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.tables import LATER_COLUMNS
from cyclegan_cli.training.watcher import Watcher, Watchers

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

EVENTS_FOLDER = "tensorboard"
# TensorBoard reads files with this in their names, in the names' order.
EVENTS_NAME = "events.out.tfevents."


@contextmanager
def with_tensorboard(plan: Plan, watcher: Watcher) -> Iterator[Watcher]:
    """Have TensorBoard's files written beside what ``watcher`` does, if the options say so."""
    if not plan.config.tensorboard:
        yield watcher
        return
    board = TensorBoard()
    try:
        yield Watchers(watcher, board)
    finally:
        board.close()


class TensorBoard:
    """Writes what it is told as events, on disk as soon as it is told.

    Not through torch's ``SummaryWriter``: that one writes in a thread, and where a disk is full
    it is the thread that fails.
    """

    stream: BinaryIO | None = None

    def started(self, plan: Plan) -> None:
        """Begin a file; what an earlier session wrote after the saved step counts no more.

        Raises:
            OutputError: It cannot be written.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog  # noqa: PLC0415 an extra

        folder = plan.run_dir / EVENTS_FOLDER
        files.make_folder(folder)
        # Numbered, not named by the time: clocks may go back.
        numbers = [path.suffix[1:] for path in folder.glob(f"{EVENTS_NAME}*")]
        number = 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
        self.path = folder / f"{EVENTS_NAME}{number:06d}"
        with self._as_output_error():
            self.stream = self.path.open("xb")
        first = plan.first_step + 1
        self._write(first, file_version="brain.Event:2")
        self._write(first, session_log=SessionLog(status=SessionLog.START))

    def measured(self, row: dict[str, float]) -> None:
        """Losses, gradient norms, learning rate and speed.

        Raises:
            OutputError: They cannot be written.
        """
        losses = {f"loss/{name}": row[name] for name in LOSS_NAMES}
        rates = {name: row[name] for name in ("learning_rate", "images_per_second")}
        gradients = {f"gradients/{name}": row[name] for name in LATER_COLUMNS}
        self._write_scalars(int(row["step"]), losses | rates | gradients)

    def validated(self, row: dict[str, float]) -> None:
        """All measures of quality.

        Raises:
            OutputError: They cannot be written.
        """
        measures = {name: row[name] for name in row if name not in ("step", "seconds")}
        self._write_scalars(int(row["step"]), {f"quality/{k}": v for k, v in measures.items()})

    def sampled(self, step: int, grid: Path) -> None:
        """The grid as it is.

        Raises:
            OutputError: It cannot be written.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 an extra

        content = grid.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            width, height = opened.size
        image = Summary.Image(
            width=width, height=height, colorspace=3, encoded_image_string=content
        )
        self._write(step, summary=Summary(value=[Summary.Value(tag="samples", image=image)]))

    def stepped(self, step: int) -> None:
        """So many steps are done."""

    def told(self, sentence: str) -> None:
        """Something is worth knowing."""

    def warned(self, sentence: str) -> None:
        """Something is wrong, and the run goes on."""

    def close(self) -> None:
        """End the file."""
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
        assert self.stream, "started first"
        with self._as_output_error():
            # Whole records or none, as far as the system goes: readers stop at half a one.
            self.stream.write(record.getvalue())
            self.stream.flush()

    @contextmanager
    def _as_output_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
