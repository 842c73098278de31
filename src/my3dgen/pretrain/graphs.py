"""A training step as one CUDA graph: launch overhead is most of the time of small networks.

On a CPU, or with `capture=False`, the step simply runs, so that both paths share one code.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")
"""Any dataclass whose fields are tensors."""


def _tensors(batch: Any) -> dict[str, Tensor]:
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def _copy(batch: Any) -> Any:
    return replace(batch, **{name: tensor.clone() for name, tensor in _tensors(batch).items()})


WARM_UP = 3


class CapturedStep(Generic[Batch]):
    """Runs `step` on batches of one shape, replaying a captured graph on CUDA.

    `step` does forward and backward: it leaves gradients in `.grad` and returns values to log or reuse.
    """

    def __init__(
        self, step: Callable[[Batch], dict[str, Tensor]], parameters: list[Tensor], *, capture: bool
    ):
        self.step, self.parameters, self.capture = step, parameters, capture
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: Batch | None = None
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of this batch replace those in `.grad`; outputs are overwritten by the next call."""
        if not self.capture:
            for parameter in self.parameters:
                parameter.grad = None
            return self.step(batch)
        if self.graph is None:
            self._record(batch)
        assert self.graph is not None and self.inputs is not None
        new = _tensors(batch)
        for name, tensor in _tensors(self.inputs).items():
            tensor.copy_(new[name])
        # other graphs write other gradients, so every replay points .grad at its own buffers
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        self.graph.replay()
        return self.outputs

    def _record(self, batch: Batch) -> None:
        inputs: Batch = _copy(batch)
        self.inputs = inputs
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._clear()
                self.step(inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._clear()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = self.step(inputs)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
