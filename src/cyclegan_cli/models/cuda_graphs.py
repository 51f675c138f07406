"""CUDA graphs: many small operations, launched at once.

A training step has thousands of operations, most of which take a few microseconds on a GPU, less
than Python takes to launch them. A CUDA graph is recorded once and launched as a whole.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Outputs = TypeVar("Outputs")

# Passes before recording: kernels are selected and memory is allocated.
WARM_UP_PASSES = 3


class CUDAGraphFunction(Generic[Outputs]):
    """A function recorded as a CUDA graph.

    The function must neither wait for the device nor depend on values other than those of tensors.
    It is called a few times before it is recorded.

    Args:
        function: Takes tensors, and returns tensors in any structure.
        inputs: Tensors on a CUDA device, of the sizes of all later calls.
        pool: The memory pool of a graph that is always launched before this one; None for a new
            pool.

    Raises:
        RuntimeError: The function cannot be recorded, or there is not enough memory.
    """

    def __init__(
        self,
        function: Callable[..., Outputs],
        inputs: tuple[Tensor, ...],
        pool: Any = None,
    ) -> None:
        self.inputs = tuple(one.clone() for one in inputs)
        # Recording needs a stream of its own, and so do the passes before it.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_PASSES):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may allocate pinned memory in the meantime.
        with (
            _garbage_collected_before(),
            torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"),
        ):
            self.outputs = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Outputs:
        """Run the function; the outputs are overwritten by the next call."""
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.outputs


@contextmanager
def _garbage_collected_before() -> Iterator[None]:
    """Collect garbage now, but not inside: deleting another CUDA graph would end the recording."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
