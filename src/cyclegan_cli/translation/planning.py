"""What is to be translated, decided and checked before anything is."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from cyclegan_cli.data.folder import SkippedFiles
from cyclegan_cli.errors import UsageError
from cyclegan_cli.runtime.distributed_env import SINGLE_SHARD, Shard
from cyclegan_cli.translation.inputs import Inputs, Source
from cyclegan_cli.translation.ledger import Clashes, Draft, digest, share_number
from cyclegan_cli.translation.letter_case import ignores_case
from cyclegan_cli.translation.naming import Naming


class Job(NamedTuple):
    """One image to translate.

    Attributes:
        input: Where it is.
        output: Where its translation goes.
    """

    input: str
    output: str


def folder_to_leave_out(output: str | None) -> str | None:
    """The real path of what is not searched for inputs: translations are not translated again."""
    return None if output is None else os.path.realpath(output)


class Plan:
    """The jobs of this process, in the order of the inputs; no image twice.

    The inputs are walked through twice: now, to check them all, of which digests are kept; and
    once more while they are translated. What appears in the meantime is left for another run.

    Args:
        inputs: The images.
        naming: Where their translations go.
        replaces: Whether existing outputs may be replaced.
        share: Which of them are for this process.

    Attributes:
        images: How many there are, in all shares.
        passed_over: A sentence on image files in folders that are none of them, or empty.

    Raises:
        UsageError: Two inputs for the same output, or an output that is an input, in any share.
        DataError: An input does not exist, or a folder has no images.
    """

    def __init__(
        self, inputs: Inputs, naming: Naming, replaces: bool = False, share: Shard = SINGLE_SHARD
    ) -> None:
        self._inputs, self._naming = inputs, naming
        self._real_folder = functools.lru_cache(maxsize=4096)(os.path.realpath)
        self._folder_ignores_case = functools.lru_cache(maxsize=4096)(ignores_case)
        draft, passed_over = Draft(), SkippedFiles()
        for source in inputs.checked(passed_over):
            output = naming.output_of(source)
            draft.add(self._key(source.path), self._key(output), _share_number_of(source))
        # So that `translate photos/*.jpg` can be run again, though its translations lie beside
        # its images now, as those of `translate photos -o photos --suffix _night` do: they are
        # passed over. Where they would be replaced instead, whether they are translations or the
        # user's own images cannot be told.
        self.passed_over = passed_over.sentence()
        pass_over_outputs = naming.file is None and not replaces
        self._ledger, clashes = draft.finish(pass_over_outputs)
        if clashes:
            self._refuse(clashes)
        self.images = len(self._ledger)
        self._ledger.keep_share(share.index, share.count)

    def __len__(self) -> int:
        return len(self._ledger)

    def __iter__(self) -> Iterator[Job]:
        """The jobs that nobody has been given yet."""
        for source in self._inputs:
            output = self._naming.output_of(source)
            if self._ledger.take(self._key(output)):
                yield Job(source.path, output)

    def _refuse(self, clashes: Clashes) -> NoReturn:
        """Name the first of the outputs that overwrite an input or each other."""
        writers: dict[bytes, str] = {}
        for source in self._inputs:
            output = self._naming.output_of(source)
            key = self._key(output)
            if key in clashes.inputs:
                raise UsageError(
                    f"{output} is an input: its translation would overwrite it",
                    "Name another output with -o.",
                )
            first = writers.setdefault(key, source.path) if key in clashes.shared else source.path
            if self._key(first) != self._key(source.path):
                raise UsageError(
                    f"{first} and {source.path} would both be written to {output}",
                    "Keep their folders with --root, tell them apart with --name-template, or "
                    "translate them into two folders.",
                )
        raise UsageError("the inputs change while they are being listed", "Run it again.")

    def _key(self, path: str) -> bytes:
        """A digest of the real path, whatever links lead there; the same for the same file."""
        real = self._real(path)
        return digest(os.fsencode(real.casefold() if self._ignores_case(real) else real))

    def _ignores_case(self, real: str) -> bool:
        return self._folder_ignores_case(os.path.dirname(real))

    def _real(self, path: str) -> str:
        """As :func:`os.path.realpath`, which looks at every folder on the way each time."""
        folder, name = os.path.split(path)
        if name in ("", os.curdir, os.pardir) or os.path.islink(path):
            return os.path.realpath(path)
        return os.path.join(self._real_folder(folder), name)


def _share_number_of(source: Source) -> int:
    """Of the path as it is written, which may differ from machine to machine in front of it."""
    return share_number(os.fsencode(os.path.normpath(source.path).replace(os.sep, "/")))
