"""What the machine is, and what it can do at best: copying and multiplying."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from my3dgen.bench.clock import time_call
from my3dgen.revision import commit

Arithmetic = Literal["fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True)
class Ceilings:
    """The best that was measured here."""

    copy_gb_s: float
    """Bytes read and written by a large copy, 1e9 a second."""
    matmul_tflop_s: dict[Arithmetic, float]
    """1e12 floating point operations a second of a large matrix product (on a CPU: or convolution); an
    addition counts like a multiplication. tf32 and fp16 on CUDA alone."""


def machine(device: str) -> dict:
    """Facts about where a measurement was made, for its JSON."""
    cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "driver": _driver() if cuda else None,
        "torch": torch.__version__,
        "commit": commit(),
        "threads": torch.get_num_threads(),
    }


def ceilings(device: str, *, side: int | None = None) -> Ceilings:
    """Measure them; matrices are `side` across (default: 8192 on CUDA, 1024 else).

    On a CPU the better of a product and a 3x3 convolution counts: they come from different libraries.
    """
    cuda = device == "cuda"
    side = side or (8192 if cuda else 1024)
    copied = _copied(device, side * side * (1 if cuda else 32))
    if cuda:
        return Ceilings(copied, {kind: _product(kind, device, side) for kind in ARITHMETICS})
    best: dict[Arithmetic, float] = {}
    for kind in ARITHMETICS[:2]:
        best[kind] = max(_product(kind, device, side), _convolution(kind, device, side // 4))
    return Ceilings(copied, best)


ARITHMETICS: tuple[Arithmetic, ...] = ("fp32", "bf16", "fp16", "tf32")
DTYPES: dict[Arithmetic, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _copied(device: str, numbers: int) -> float:
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    time = time_call(lambda: target.copy_(source), device, repeats=10)
    return 2 * source.numel() * source.element_size() / time.median_ms / 1e6


def _product(kind: Arithmetic, device: str, side: int) -> float:
    a, b = (torch.randn(side, side, device=device).to(DTYPES.get(kind, torch.float32)) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    try:
        time = time_call(lambda: a @ b, device, repeats=8, warm_up=2)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * side**3 / time.median_ms / 1e9


def _convolution(kind: Arithmetic, device: str, channels: int, size: int = 64) -> float:
    dtype = DTYPES.get(kind, torch.float32)
    x = torch.randn(1, channels, size, size, device=device).to(dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
    x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
    time = time_call(lambda: F.conv2d(x, weight, padding=1), device, repeats=8, warm_up=2)
    return 2 * 9 * (channels * size) ** 2 / time.median_ms / 1e9


def _processor() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
        return next(row.split(":", 1)[1].strip() for row in rows if row.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _driver() -> str | None:
    tool = shutil.which("nvidia-smi")
    return _first_line([tool, "--query-gpu=driver_version", "--format=csv,noheader"]) if tool else None


def _first_line(command: list[str]) -> str | None:
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = found.stdout.split("\n")
    return lines[0].strip() or None if found.returncode == 0 else None
