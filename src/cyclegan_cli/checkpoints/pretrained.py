"""The models that come with the package, each with a card that says what it is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

DEFAULT_MODEL = "day2night"
MODEL_SUFFIX, CARD_SUFFIX = ".safetensors", ".md"
FENCE = "---"


@dataclass(frozen=True)
class Pretrained:
    """A model in the package.

    Attributes:
        name: What ``--checkpoint`` calls it.
        path: Its file.
        card: Its card, for people.
        facts: What the head of the card says, by name: ``description``, ``data``, ``licence``.
    """

    name: str
    path: Path
    card: Path
    facts: dict[str, str]


def pretrained_models() -> list[Pretrained]:
    """All models in the package, by name."""
    folder = Path(str(resources.files("cyclegan_cli"))) / "pretrained"
    return [_model(path) for path in sorted(folder.glob(f"*{MODEL_SUFFIX}"))]


def pretrained_file(name: str) -> Path | None:
    """The file of the model in the package that is called so."""
    return next((model.path for model in pretrained_models() if model.name == name), None)


def _model(path: Path) -> Pretrained:
    card = path.with_suffix(CARD_SUFFIX)
    return Pretrained(path.stem, path, card, _head(card.read_text(encoding="utf-8")))


def _head(card: str) -> dict[str, str]:
    """The ``name: value`` lines between the first two fences."""
    _, head, _ = card.split(f"{FENCE}\n", 2)
    return dict(line.split(": ", 1) for line in head.splitlines())
