"""Capture a step of many small operations as one CUDA graph, which a single call launches."""

import functools
import gc
import sys
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # steps on a side stream before the capture, as CUDA requires


class CapturedStep:
    """Run `step` as a graph on inputs shaped like the first call's, and eagerly on others (a smaller last batch).

    The warm-up steps count like all others. `step` must not wait for the device, and may read only its inputs
    and tensors that keep their memory. If CUDA cannot capture the step, a warning says so and it runs eagerly.
    """

    def __init__(self, step: Callable[..., None]) -> None:
        self.step = step
        self.inputs: list[Tensor | None] = []  # that the graph reads
        self.shapes: list[torch.Size | None] = []
        self.graph: torch.cuda.CUDAGraph | None = None
        self.steps = 0
        self.refused = False

    def __call__(self, *inputs: Tensor | None) -> None:
        shapes = [None if x is None else x.shape for x in inputs]
        self.shapes = self.shapes or shapes
        if self.refused or shapes != self.shapes:
            self.step(*inputs)
        elif self.steps < WARM_UP:
            self.steps += 1
            self._warm_up(*inputs)
        elif self.graph is None:
            self._capture(*inputs)
        else:
            for own, given in zip(self.inputs, inputs, strict=True):
                if own is not None and given is not None:
                    own.copy_(given)
            self.graph.replay()

    def _warm_up(self, *inputs: Tensor | None) -> None:
        side = _side_stream(torch.cuda.current_device())
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.step(*inputs)
        torch.cuda.current_stream().wait_stream(side)

    def _capture(self, *inputs: Tensor | None) -> None:
        self.inputs = [None if x is None else x.clone() for x in inputs]
        gc.collect()  # graphs of earlier populations must not be freed during the capture
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):  # records the operations without running them
                self.step(*self.inputs)
        except RuntimeError as error:
            reason = (str(error).splitlines() or [""])[0]
            print(f"warning: steps are not captured as a CUDA graph, which only costs time ({reason})", file=sys.stderr)
            self.refused = True
            self.step(*inputs)
            return
        self.graph = graph
        graph.replay()


@functools.cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """The stream of all warm-ups; there is only one, because libraries keep a workspace for every stream they see."""
    return torch.cuda.Stream(device)
