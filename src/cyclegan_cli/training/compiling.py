"""``torch.compile`` and CUDA graphs: what a training does once, before its first step."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cyclegan_cli.config import CompileChoice
from cyclegan_cli.models.cyclegan import CycleGAN


def compile_and_record(
    model: CycleGAN,
    choice: CompileChoice,
    real_a: Tensor,
    real_b: Tensor,
    on_message: Callable[[str], None],
    on_warning: Callable[[str], None],
) -> None:
    """Compile the networks and record the step as CUDA graphs, where chosen and possible.

    If something fails, the training runs without it.

    Args:
        model: The model.
        choice: ``off``: neither; ``auto``: CUDA graphs on a GPU; ``on``: both.
        real_a: Images as for :meth:`CycleGAN.step`.
        real_b: Images as for :meth:`CycleGAN.step`.
        on_message: Called before the networks are compiled.
        on_warning: Called when something fails.
    """
    if choice == "on":
        on_message("compiling the networks, which takes a minute or two")
        try:
            model.compile(real_a, real_b)
        except Exception as error:  # Compilers raise all kinds of errors.
            on_warning(
                "the networks cannot be compiled and run without compilation: " + _reason(error)
            )
    if choice != "off" and model.device.type == "cuda":
        try:
            model.record_graphs(real_a, real_b)
        except RuntimeError as error:
            on_warning("the training runs without CUDA graphs, more slowly: " + _reason(error))


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or repr(error)
