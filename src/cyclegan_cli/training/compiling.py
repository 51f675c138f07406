"""``torch.compile`` and CUDA graphs: what a training does once, before its first step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cyclegan_cli.config import CompileChoice
from cyclegan_cli.errors import DeviceError
from cyclegan_cli.models.cyclegan import CycleGAN


def compile_and_capture(
    model: CycleGAN,
    choice: CompileChoice,
    real_a: Tensor,
    real_b: Tensor,
    on_message: Callable[[str], object] = lambda _message: None,
    on_warning: Callable[[str], object] = lambda _message: None,
) -> None:
    """Compile the networks and capture the step as CUDA graphs, where chosen and possible.

    Args:
        model: The model.
        choice: ``off``: neither; ``auto``: CUDA graphs on a GPU; ``on``: both.
        real_a: Images as for :meth:`CycleGAN.step`.
        real_b: Images as for :meth:`CycleGAN.step`.
        on_message: Called before the networks are compiled.
        on_warning: Called if the networks cannot be compiled, or if there is not enough memory
            for CUDA graphs. The training runs without them.

    Raises:
        DeviceError: The step cannot be captured.
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
            model.capture_graphs(real_a, real_b)
        except torch.OutOfMemoryError:
            on_warning("not enough memory for CUDA graphs: the training runs without, more slowly")
        except Exception as error:
            # Errors after the first one are about the capture that it has ended, after which torch
            # may not recover.
            reason = _reason(error.__context__ or error)
            raise DeviceError(
                f"the step cannot be captured as CUDA graphs: {reason}", "Use --compile off."
            ) from error


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or repr(error)
