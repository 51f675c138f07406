"""CUDA graphs: many small operations, launched at once.

A training step has thousands of operations, most of which take a few microseconds on a GPU, less
than Python takes to launch them. A CUDA graph is captured once and replayed as a whole.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Outputs = TypeVar("Outputs")

# Passes before the capture: kernels are selected and memory is allocated.
WARM_UP_PASSES = 3


class CUDAGraphFunction(Generic[Outputs]):
    """A function captured as a CUDA graph.

    The function must neither wait for the device nor depend on values other than those of tensors.
    It is called a few times before it is captured.

    Args:
        function: Takes tensors, and returns tensors in any structure.
        inputs: Tensors on one CUDA device, of the shapes and dtypes of all later calls.
        after: A function that is always called before this one, whose memory pool it shares; None:
            it has its own.

    Raises:
        torch.OutOfMemoryError: There is not enough memory.
        Exception: The function fails, or cannot be captured.
    """

    def __init__(
        self,
        function: Callable[..., Outputs],
        inputs: tuple[Tensor, ...],
        after: CUDAGraphFunction[Any] | None = None,
    ) -> None:
        device = inputs[0].device
        self.inputs = tuple(one.clone() for one in inputs)
        self.graph = torch.cuda.CUDAGraph()
        # Not the default stream, which cannot be captured; graphs that share memory share it, too.
        self.stream: torch.cuda.Stream = (
            after.stream if after else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        )
        self.stream.wait_stream(torch.cuda.current_stream(device))
        # Also restores the device and the stream if the capture fails.
        with torch.cuda.device(device), torch.cuda.stream(self.stream):
            for _ in range(WARM_UP_PASSES):
                function(*self.inputs)
            # Other threads, such as NCCL's watchdog, may call functions that a capture forbids.
            capture = torch.cuda.graph(
                self.graph,
                pool=after.graph.pool() if after else None,
                stream=self.stream,
                capture_error_mode="thread_local",
            )
            with _garbage_collected_before(), capture:
                self.outputs = function(*self.inputs)
        torch.cuda.current_stream(device).wait_stream(self.stream)

    def __call__(self, *inputs: Tensor) -> Outputs:
        """Replay the graph; the outputs are overwritten by the next call.

        Raises:
            ValueError: An input has another shape or dtype than the captured one.
        """
        for own, new in zip(self.inputs, inputs, strict=True):
            if (own.shape, own.dtype) != (new.shape, new.dtype):
                raise ValueError(
                    f"captured for {list(own.shape)} of {own.dtype}, "
                    f"found {list(new.shape)} of {new.dtype}"
                )
            own.copy_(new)
        self.graph.replay()
        return self.outputs


@contextmanager
def _garbage_collected_before() -> Iterator[None]:
    """Collect garbage now, but not inside: deleting another CUDA graph would end the capture."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
