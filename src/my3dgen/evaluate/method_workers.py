"""Many pieces of work at once: processes that share GPUs, or one process that does it all.

A step of a small network keeps a GPU busy for less time than its launch takes, so several processes share a
card; several cards are used in turn.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch

from my3dgen.errors import UserError
from my3dgen.evaluate.method_bench import Bench
from my3dgen.evaluate.method_protocol import Protocol, Row
from my3dgen.prior.store import load_prior

Kind = Literal["person", "album", "anchors", "model", "row"]


@dataclass(frozen=True)
class Job:
    """A piece of work; of a person, photos and views, only the row's person counts."""

    kind: Kind
    row: Row


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where work is done; everything a process needs to begin."""

    prior: str
    prior_sha256: str
    """What it is to be, so that no process works with another that has taken its place meanwhile."""
    protocol: Protocol
    out: Path
    seed: int
    device: str
    processes: int
    """Processes a GPU, or on the CPU in all."""

    @property
    def cards(self) -> int:
        """GPUs in use; 0 on a CPU."""
        return torch.cuda.device_count() if self.device == "cuda" else 0

    @property
    def workers(self) -> int:
        """Processes in all."""
        return self.processes * max(1, self.cards)

    def open(self) -> Bench:
        """The bench in this process. Raises UserError when the prior is another than it was."""
        prior = load_prior(self.prior, self.device)
        if prior.sha256 != self.prior_sha256:
            raise UserError(f"the prior '{self.prior}' was replaced meanwhile; run the same command again")
        return Bench(prior, self.protocol, self.out, self.seed)


Result = dict[str, Any]
Doing = Callable[[Sequence[Job]], Iterator[tuple[Job, Result]]]


def do(bench: Bench, job: Job) -> Result:
    """Do one piece; a row's figures, or {"error": ...} when it fails, whatever the reason."""
    try:
        match job.kind:
            case "person":
                bench.person(job.row.person)
            case "album":
                bench.prepare_album(job.row)
            case "anchors":
                bench.prepare_anchors(job.row)
            case "model":
                bench.prepare_model(job.row)
            case "row":
                return bench.row(job.row)
    except Exception as error:  # a benchmark of hours shall not end with its first bad row
        words = str(error).splitlines()
        return {"error": words[0] if isinstance(error, UserError) else f"{type(error).__name__}: {words[:1]}"}
    return {}


class Workers:
    """A context in which `run` does jobs, none of which needs another of the same call."""

    def __init__(self, place: Place):
        self.place = place
        self.pool: ProcessPoolExecutor | None = None
        self.bench: Bench | None = None

    def __enter__(self) -> "Workers":
        if self.place.workers == 1:
            self.bench = self.place.open()
        else:
            context = get_context("spawn")  # a forked process can't use CUDA
            # the logs hold progress, and what a process says when it dies
            (self.place.out / "logs").mkdir(parents=True, exist_ok=True)
            self.pool = ProcessPoolExecutor(
                self.place.workers, context, _begin, (self.place, context.Value("i", 0))
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=kind is None, cancel_futures=True)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Result]]:
        """Jobs with their results, in the order they are finished.

        Raises UserError when a process dies, as when memory runs out.
        """
        if self.bench is not None:
            for job in jobs:
                yield job, do(self.bench, job)
        elif self.pool is not None:
            waiting = {self.pool.submit(_do, job): job for job in jobs}
            for future in as_completed(waiting):
                try:
                    yield waiting[future], future.result()
                except BrokenProcessPool:
                    raise UserError(
                        f"a process died, perhaps for want of memory (see {self.place.out / 'logs'}); "
                        "finished rows are kept: run the same command with fewer --processes"
                    ) from None


_bench: Bench | UserError | None = None


def _begin(place: Place, counter: Any) -> None:
    """What a new process does first."""
    global _bench
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    log = open(place.out / "logs" / f"worker{number}.txt", "a", buffering=1)  # noqa: SIM115
    os.dup2(log.fileno(), sys.stderr.fileno())
    if place.cards:
        torch.cuda.set_device(number % place.cards)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.workers))
    try:
        _bench = place.open()
    except UserError as error:  # raised here it would be taken for a process that died
        _bench = error


def _do(job: Job) -> Result:
    assert _bench is not None
    if isinstance(_bench, UserError):
        return {"error": str(_bench)}
    return do(_bench, job)
