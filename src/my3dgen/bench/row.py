"""One line of a measurement, as JSON and as a table for people."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from my3dgen.bench.clock import Timing
from my3dgen.bench.machine import Arithmetic, Ceilings


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one piece of work."""

    name: str
    batch: int
    """Images of a call."""
    median_ms: float
    spread_ms: float
    """Distance between the quartiles."""
    images_per_s: float
    peak_memory_mb: float | None = None
    """Most memory that torch held of a GPU, 1e6 bytes; None on a CPU."""
    peak_tensors_mb: float | None = None
    """Most of it that tensors had, graphs replayed apart."""
    psnr_vs_reference: float | None = None
    """Of the picture against that of the plain float32 path, in dB over the reference's range; None where
    there is no picture and infinite where they are equal."""
    gflop: float | None = None
    """Arithmetic of an image, 1e9 operations, by the convolutions and products of the plain path."""
    least_mb: float | None = None
    """Bytes of a call that must be moved, 1e6: weights once, what goes in and what comes out."""
    matmul_fraction: float | None = None
    """Of the speed of a large matrix product in the same arithmetic."""
    copy_fraction: float | None = None
    """Of the speed of a large copy, counting `least_mb`."""


def row(
    name: str,
    batch: int,
    timing: Timing,
    *,
    work: "Work | None" = None,
    ceilings: Ceilings | None = None,
    arithmetic: Arithmetic = "fp32",
    peaks: "Peaks | None" = None,
    psnr: float | None = None,
) -> Row:
    """A row from a measured time and, if known, what had to be done and what the machine can do."""
    seconds = timing.median_ms / 1e3
    matmul = copied = None
    if work is not None and ceilings is not None:
        matmul = batch * work.flop / seconds / 1e12 / ceilings.matmul_tflop_s[arithmetic]
        copied = work.bytes_of(batch) / seconds / 1e9 / ceilings.copy_gb_s
    return Row(
        name=name,
        batch=batch,
        median_ms=timing.median_ms,
        spread_ms=timing.spread_ms,
        images_per_s=batch / seconds,
        peak_memory_mb=None if peaks is None else peaks.held_mb,
        peak_tensors_mb=None if peaks is None else peaks.tensors_mb,
        psnr_vs_reference=psnr,
        gflop=None if work is None else work.flop / 1e9,
        least_mb=None if work is None else work.bytes_of(batch) / 1e6,
        matmul_fraction=matmul,
        copy_fraction=copied,
    )


@dataclass(frozen=True)
class Peaks:
    """Most memory of a GPU, 1e6 bytes: what torch held, and what tensors had of it. None on a CPU."""

    held_mb: float | None = None
    tensors_mb: float | None = None


@dataclass(frozen=True)
class Work:
    """What an image needs at least."""

    flop: int
    """Operations of convolutions and products; an addition counts like a multiplication."""
    shared: int
    """Bytes that a call reads once, whatever its batch."""
    each: int
    """Bytes that go in and come out per image."""

    def bytes_of(self, batch: int) -> int:
        """Bytes that a call moves at least."""
        return self.shared + batch * self.each


@torch.no_grad()
def work_of(call: Callable[[], Tensor], given: Iterable[Tensor], weights: Iterable[Tensor]) -> Work:
    """The work of `call`, which handles one image with `given` and returns a tensor."""
    with FlopCounterMode(display=False) as counter:
        out = call()
    return Work(counter.get_total_flops(), _bytes(weights), _bytes([*given, out]))


def psnr(images: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the reference's range."""
    reference = reference.float()
    error = (images.to(reference) - reference).square().mean()
    return (20 * (reference.amax() - reference.amin()).log10() - 10 * error.log10()).item()


def report(machine: dict, ceilings: Ceilings, rows: list[Row], *, finished: bool) -> dict:
    """The JSON of a bench; unfinished, there are rows to come."""
    found = [asdict(row) for row in rows]
    return {**machine, "ceilings": asdict(ceilings), "finished": finished, "rows": found}


def table(found: dict) -> str:
    """The same for people."""
    ceilings = found["ceilings"]
    products = ", ".join(f"{kind} {rate:.3g}" for kind, rate in ceilings["matmul_tflop_s"].items())
    lines = [
        f"{found['device']}, torch {found['torch']}, {found['threads']} threads"
        + (f", driver {found['driver']}" if found["driver"] else "")
        + (f", commit {found['commit']}" if found["commit"] else ""),
        f"at best: copy {ceilings['copy_gb_s']:.4g} GB/s; product {products} TFLOP/s",
        "",
        f"{'work':<46} {'batch':>5} {'ms':>9} {'+-':>7} {'images/s':>9} {'MB':>7} {'dB':>6} {'product':>8} "
        f"{'copy':>6}",
    ]
    for r in found["rows"]:
        lines.append(
            f"{r['name']:<46} {r['batch']:>5} {r['median_ms']:>9.3f} {r['spread_ms']:>7.3f} "
            f"{r['images_per_s']:>9.1f} {_or_dash(r['peak_memory_mb'], '.0f'):>7} "
            f"{_or_dash(r['psnr_vs_reference'], '.1f'):>6} {_or_dash(r['matmul_fraction'], '.1%'):>8} "
            f"{_or_dash(r['copy_fraction'], '.1%'):>6}"
        )
    return "\n".join(lines)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
