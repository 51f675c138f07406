"""Measures of single translations: the structure score and the cycle error."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cyclegan_cli.config import BandFormat
from cyclegan_cli.data.bands import BandImage, to_unit
from cyclegan_cli.data.image import DecodedImage, Measures, PixelArray, to_depth
from cyclegan_cli.errors import UsageError
from cyclegan_cli.metrics.structure import score_of_lumas, small_luma, small_size
from cyclegan_cli.translation.translator import Translator

ROWS_AT_ONCE = 256
DIGITS = 4
AnyImage = DecodedImage | BandImage


@dataclass(frozen=True)
class Measuring:
    """Measures translations.

    Attributes:
        translator: The translator.
        minimum: Lowest structure score of a translation that is written; None: any.
        reverse: The translator in the other direction, for the cycle error; None: not measured.
    """

    translator: Translator
    minimum: float | None = None
    reverse: Translator | None = None

    def before(self, image: AnyImage) -> AnyImage:
        """Return the image with the luma that its translation will be compared with."""
        return replace(image, measures=Measures(_lumas(image, self.translator.source_format)))

    def translated(self, image: AnyImage, result: AnyImage) -> AnyImage:
        """Return a translation with the measures of its input, and with the cycle error.

        Args:
            image: The input, decoded at full scale if the cycle error is measured.
            result: Its translation, of the whole image.
        """
        measures = image.measures or Measures()
        if self.reverse is not None:
            measures = replace(measures, cycle_error=self._cycle_error(image, result))
        return replace(result, measures=measures)

    def _cycle_error(
        self, image: DecodedImage | BandImage, result: DecodedImage | BandImage
    ) -> float:
        assert self.reverse is not None
        source = self.translator.source_format
        errors = []
        for index, before in enumerate(_frames(image)):
            after = _frames(result)[index]
            if source is None and self.translator.target_format is None:
                back = self.reverse.translate_array(after, 16 if before.itemsize == 2 else 8)
            else:
                back = self.reverse.translate_bands(after)[0]
            errors.append(_difference(before, back, source))
        return round(float(np.mean(errors)), DIGITS)

    def structure(self, image: DecodedImage | BandImage) -> float:
        """Return the lowest structure score of the frames of a translation.

        With a mask, only the pixels inside of it count.
        """
        before = image.measures.lumas if image.measures else ()
        after = _lumas(image, self.translator.target_format)
        weights: tuple[PixelArray, ...] = ()
        if isinstance(image, BandImage) and image.weights is not None:
            weights = (image.weights,)
        elif isinstance(image, DecodedImage) and image.masking is not None:
            weights = image.masking.weights
        scores = []
        for index, luma in enumerate(before):
            size = (luma.shape[1], luma.shape[0])
            counts = None
            if weights:
                counts = small_luma((weights[index] > 0).astype(np.float32), size)
            scores.append(score_of_lumas(luma, after[index], counts))
        return round(min(scores), DIGITS)


def _frames(image: DecodedImage | BandImage) -> tuple[PixelArray, ...]:
    return (image.values,) if isinstance(image, BandImage) else image.frames


def _lumas(image: DecodedImage | BandImage, kind: BandFormat | None) -> tuple[PixelArray, ...]:
    """Return luma of each frame; of other values than RGB, their mean in the domain's range."""
    lumas = []
    for frame in _frames(image):
        is_only = len(_frames(image)) == 1
        width, height = (image.width, image.height) if is_only else (frame.shape[1], frame.shape[0])
        values = frame
        if kind is not None:
            unit = (to_unit(frame, kind) + 1) / 2
            values = np.nan_to_num(unit, nan=float(np.nanmean(unit)) if unit.size else 0.0)
        lumas.append(small_luma(values, small_size(width, height)))
    return tuple(lumas)


def _difference(before: PixelArray, back: PixelArray, kind: BandFormat | None) -> float:
    """Return the mean absolute difference as a share of the range, over pixels with data."""
    total, count = 0.0, 0
    for top in range(0, len(before), ROWS_AT_ONCE):
        one, other = before[top : top + ROWS_AT_ONCE], back[top : top + ROWS_AT_ONCE]
        if kind is None:
            pair = [to_depth(rows, 16).astype(np.float32) / 65535 for rows in (one, other)]
        else:
            pair = [to_unit(rows, kind) / 2 for rows in (one, other)]
        differences = np.abs(pair[0] - pair[1])
        has_data = ~np.isnan(differences)
        total += float(differences[has_data].sum(dtype=np.float64))
        count += int(has_data.sum())
    return total / max(count, 1)


def choose_measuring(
    translator: Translator, minimum: float | None, is_reported: bool, has_cycle_error: bool
) -> Measuring | None:
    """Return the measures that the options select; None if no measure is used.

    Args:
        translator: The translator.
        minimum: ``--min-structure``.
        is_reported: Whether measures are printed.
        has_cycle_error: ``--cycle-error``.

    Raises:
        UsageError: The checkpoint has no generator of the other direction.
    """
    if minimum is None and not is_reported:
        return None
    reverse = None
    if has_cycle_error:
        if len(translator.info.directions) < 2:
            raise UsageError(
                "--cycle-error needs the generators of both directions, and this checkpoint has "
                f"only {translator.source} -> {translator.target}",
                "Leave it out, or use the checkpoint of a training.",
            )
        reverse = translator.to(translator.source)
    return Measuring(translator, minimum, reverse)
