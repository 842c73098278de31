"""`my3dgen bench`: how fast pictures and people are made on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from my3dgen.cli.verb import Verb

if TYPE_CHECKING:
    from my3dgen.bench.machine import Ceilings
    from my3dgen.bench.row import Row

MOST_IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class _Bench(Verb):
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """File for the JSON, too; written after every row, so that a bench that is stopped keeps its rows."""
    repeats: int | None = None
    """Calls that are timed; 30 on CUDA, 5 on a CPU by default."""

    def measure(self, device: str, rows: Callable[[str, int, Ceilings], Iterator[Row]]) -> dict:
        """Measure the machine, then the rows of (device, repeats, ceilings) as they come."""
        from my3dgen.bench.machine import ceilings, machine
        from my3dgen.bench.row import report, table
        from my3dgen.errors import UserError
        from my3dgen.output import check_output
        from my3dgen.progress import say

        if self.repeats is not None and not 1 <= self.repeats <= 10_000:
            raise UserError(f"--repeats {self.repeats} is out of range; choose 1 to 10000")
        if self.out is not None:
            check_output(self.out, (".json",), "a bench's file ends in .json")
        where, best, found = machine(device), ceilings(device), []
        for row in rows(device, self.repeats or (30 if device == "cuda" else 5), best):
            say(f"{row.name}, batch {row.batch}: {row.median_ms:.3f} ms")
            found.append(row)
            self.keep(report(where, best, found, finished=False))
        result = report(where, best, found, finished=True)
        self.keep(result)
        if not self.json:
            print(table(result))
        return result

    def keep(self, result: dict) -> None:
        """Write the JSON so far, if asked for: whole, in place of the one before."""
        import json

        from my3dgen.cli import json_values
        from my3dgen.output import whole

        if self.out is not None:
            with whole(self.out) as beside:
                beside.write_text(json.dumps(json_values(result), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class _DeviceBench(_Bench):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    batches: str = "16,1,4"
    """Images at once, with commas between, in the order in which they are timed."""
    priors: str = "ffhq512-128,mini"
    """Priors of the package or presets with random weights, with commas between."""

    def sizes(self) -> list[int]:
        """The batches. Raises UserError for what is no list of numbers in range."""
        from my3dgen.errors import UserError

        words = [word.strip() for word in self.batches.split(",")]
        if not all(word.isdecimal() and 1 <= int(word) <= MOST_IMAGES for word in words):
            raise UserError(
                f"--batches '{self.batches}': give numbers from 1 to {MOST_IMAGES}, such as 1,4,16"
            )
        return [int(word) for word in dict.fromkeys(words)]

    def names(self) -> list[str]:
        """The priors. Raises UserError for an unknown one."""
        from my3dgen.config import PRESETS
        from my3dgen.errors import UserError

        words = [word.strip() for word in self.priors.split(",")]
        if wrong := [word for word in words if word not in PRESETS]:
            raise UserError(f"--priors: unknown '{wrong[0]}'; choose among {', '.join(PRESETS)}")
        return words


@dataclass(frozen=True, kw_only=True)
class BenchRender(_DeviceBench):
    """Time pictures: from latents, their stages, and new views of planes that are kept.

    On CUDA, plain calls and captured graphs, float32 and bfloat16, the volume with fused kernels and without.
    """

    def run(self) -> dict:
        from my3dgen.bench.render import bench_render
        from my3dgen.cli.device import chosen_device

        names, sizes = self.names(), self.sizes()
        return self.measure(chosen_device(self.device), lambda *given: bench_render(names, sizes, *given))


@dataclass(frozen=True, kw_only=True)
class BenchPeople(_DeviceBench):
    """Time batches of one person's pictures against batches in which everyone is another."""

    rank: int = 1
    """Rank of the adapters."""

    def run(self) -> dict:
        from my3dgen.bench.people import bench_people
        from my3dgen.cli.device import chosen_device
        from my3dgen.errors import UserError
        from my3dgen.ranks import MAX_RANK

        if not 1 <= self.rank <= MAX_RANK:
            raise UserError(f"--rank {self.rank} is out of range; choose 1 to {MAX_RANK}")
        names, sizes = self.names(), self.sizes()
        return self.measure(
            chosen_device(self.device), lambda *given: bench_people(names, sizes, *given, rank=self.rank)
        )


@dataclass(frozen=True, kw_only=True)
class BenchPersonalize(_DeviceBench):
    """Time training steps of an adapter, and a whole personalization (on a CPU: on the last prior alone).

    A step's time is what more steps add, so its pictures per second are those of long trainings.
    """

    batches: str = "4,16,1"
    """Images a step, with commas between, in the order in which they are timed."""
    photos: int | None = None
    """Photos of the whole personalization; 50 on CUDA, 6 on a CPU by default."""
    steps: int | None = None
    """Steps that are timed together; 60 on CUDA, 2 on a CPU by default."""

    def run(self) -> dict:
        from my3dgen.bench.personalize import bench_personalize
        from my3dgen.cli.device import chosen_device

        device = chosen_device(self.device)
        photos = in_range("--photos", self.photos, 1, 1000) or (50 if device == "cuda" else 6)
        steps = in_range("--steps", self.steps, 1, 10_000) or (60 if device == "cuda" else 2)
        names, sizes = self.names(), self.sizes()
        return self.measure(device, lambda where, *_: bench_personalize(names, sizes, where, photos, steps))


@dataclass(frozen=True, kw_only=True)
class BenchCpu(_Bench):
    """Time the embedded prior without a GPU: pictures, views, steps of personalization and inversion."""

    prior: Literal["mini", "tiny"] = "mini"
    """The embedded prior, or a toy."""
    steps: int = 2
    """Training steps that are timed together."""
    compiled: bool = False
    """Try torch.compile, too, which takes minutes and a C++ compiler."""

    def run(self) -> dict:
        from my3dgen.bench.cpu import bench_cpu

        in_range("--steps", self.steps, 1, 10_000)
        return self.measure(
            "cpu",
            lambda _, repeats, best: bench_cpu(self.prior, repeats, self.steps, self.compiled, best),
        )


def in_range(option: str, value: int | None, low: int, high: int) -> int | None:
    """The value. Raises UserError outside of low to high."""
    from my3dgen.errors import UserError

    if value is not None and not low <= value <= high:
        raise UserError(f"{option} {value} is out of range; choose {low} to {high}")
    return value
