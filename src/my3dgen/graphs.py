"""A training step as one CUDA graph: launch overhead is most of the time of small networks.

On a CPU, or with `capture=False`, the step simply runs, so that both paths share one code. What is captured
must not make tensors from host values (`torch.tensor`, `.item()`, indexing by a list) nor draw numbers on the
CPU; optimisers step outside.
"""

import contextlib
import functools
import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")
"""Any dataclass whose fields are tensors or tuples of tensors."""
Kind = TypeVar("Kind", bound=Hashable)


def _tensors(batch: Any) -> list[Tensor]:
    values = [getattr(batch, field.name) for field in fields(batch)]
    return [tensor for value in values for tensor in (value if isinstance(value, tuple) else (value,))]


def _copy(batch: Any) -> Any:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(
        batch,
        **{
            name: tuple(t.clone() for t in value) if isinstance(value, tuple) else value.clone()
            for name, value in values.items()
        },
    )


WARM_UP = 3
OFTEN = 4  # a kind of batch that came so often will come again: capturing it costs about as many steps


class CapturedStep(Generic[Batch]):
    """Runs `step` on batches of one shape, replaying a captured graph on CUDA.

    `step` does forward and backward: it leaves gradients in `.grad` and returns values to log or reuse.
    Steps that never overlap may share a `pool` of memory (`torch.cuda.graph_pool_handle`).
    """

    def __init__(
        self,
        step: Callable[[Batch], dict[str, Tensor]],
        parameters: list[Tensor],
        *,
        capture: bool,
        pool: Any = None,
    ):
        self.step, self.parameters, self.capture, self.pool = step, parameters, capture, pool
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: Batch | None = None
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of this batch replace those in `.grad`; outputs are overwritten by the next call."""
        if not self.capture:
            self._clear()
            return self.step(batch)
        if self.graph is None:
            self._record(batch)
        assert self.graph is not None and self.inputs is not None
        for tensor, new in zip(_tensors(self.inputs), _tensors(batch), strict=True):
            tensor.copy_(new)
        # other graphs write other gradients, so every replay points .grad at its own buffers
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        self.graph.replay()
        return self.outputs

    def _record(self, batch: Batch) -> None:
        inputs: Batch = _copy(batch)
        self.inputs = inputs
        with _nothing_freed():
            torch.cuda.empty_cache()  # the stream of the warm-up has memory of its own
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self._clear()
                    self.step(inputs)
            torch.cuda.current_stream().wait_stream(side)
            self._clear()
            torch.cuda.empty_cache()  # and so has the graph
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, pool=self.pool):
                self.outputs = self.step(inputs)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


@contextlib.contextmanager
def _nothing_freed() -> Iterator[None]:
    """No collection of garbage: a graph freed while another is recorded ends the recording with an error."""
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class CapturedKinds(Generic[Kind, Batch]):
    """Runs `step(kind, batch)` on batches of several kinds, one after the other.

    A kind says all that a step needs to know but tensors; batches of a kind have the same shapes. Those that
    come often are captured, each as a `CapturedStep` of its own; all share one pool of memory.
    """

    def __init__(
        self,
        step: Callable[[Kind, Batch], dict[str, Tensor]],
        parameters: list[Tensor],
        *,
        capture: bool,
    ):
        self.step, self.parameters, self.capture = step, parameters, capture
        self.pool = torch.cuda.graph_pool_handle() if capture else None
        if capture:
            torch.cuda.empty_cache()  # what graphs that are gone had serves nobody else
        self.seen: Counter[Kind] = Counter()
        self.captured: dict[Kind, CapturedStep[Batch]] = {}

    def __call__(self, kind: Kind, batch: Batch) -> dict[str, Tensor]:
        """As a call of `CapturedStep`."""
        self.seen[kind] += 1
        if kind not in self.captured and (not self.capture or self.seen[kind] <= OFTEN):
            return self._step_of(kind, capture=False)(batch)
        if kind not in self.captured:
            self.captured[kind] = self._step_of(kind, capture=True)
        return self.captured[kind](batch)

    def _step_of(self, kind: Kind, *, capture: bool) -> CapturedStep[Batch]:
        # without a reference to this object, whose graphs could then only be freed by a collection of garbage
        step = functools.partial(self.step, kind)
        return CapturedStep(step, self.parameters, capture=capture, pool=self.pool)
