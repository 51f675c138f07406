"""``cyclegan translate``."""

from __future__ import annotations

from cyclegan_cli.cli.options import config_options
from cyclegan_cli.cli.translation import translate
from cyclegan_cli.config import TranslateConfig


@config_options(TranslateConfig)
def translate_command(config: TranslateConfig) -> None:
    """Translate images into the other domain.

    Outputs have exactly the size of their input. Existing outputs are skipped; inputs are never
    overwritten. Exit code 6: some images failed, all others are written.
    """  # fmt: skip
    translate(config)
