"""Time per call: by the GPU's own events, or by the processor's clock."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a call."""

    median_ms: float
    spread_ms: float
    """Distance between the quartiles."""

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> "Timing":
        """The middle and the spread of repeated measurements; one alone has no spread."""
        if len(milliseconds) < 2:
            return cls(milliseconds[0], 0.0)
        low, _, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
        return cls(statistics.median(milliseconds), high - low)


@torch.no_grad()
def time_call(
    call: Callable[[], object], device: torch.device | str, *, repeats: int, warm_up: int = 3
) -> Timing:
    """The time of `call`, after some that do not count.

    On CUDA calls are queued one after the other, as in use, and each is timed from the event before it to
    the event after it: where the host is too slow to keep the queue full, that is part of the time.
    """
    for _ in range(warm_up):
        call()
    if torch.device(device).type != "cuda":
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        return Timing.of(times)
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    torch.cuda.synchronize()
    return Timing.of([a.elapsed_time(b) for a, b in pairwise(marks)])


def seconds_of(call: Callable[[], object], device: torch.device | str) -> float:
    """Seconds from asking until all work is done."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device | str) -> None:
    """Let a GPU finish its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
