"""safetensors files of strangers: read with limits, written whole or not at all."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from my3dgen.errors import FileFormatError

NUMBERS = ("F16", "BF16", "F32")
MAX_MAGNITUDE = 1e6
"""Bound on every number that is read. Trained networks stay below 1e4; products of a few numbers of this
size are still finite in float32, so what is drawn from them is, too."""


def read_tensors(
    path: Path,
    max_bytes: int,
    *,
    remedy: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    numbers: tuple[str, ...] = NUMBERS,
    max_numbers: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors in float32, metadata) of a safetensors file.

    With `shapes` the file must hold exactly these names and shapes, checked before any number is
    read. Raises FileFormatError, ending in `remedy`, for files that are larger than `max_bytes`,
    truncated, edited, of another dtype than `numbers`, hold more than `max_numbers` of them (in memory all
    are float32), or numbers that are `unusable`.
    """
    path = Path(path)

    def refuse(reason: str) -> FileFormatError:
        return FileFormatError(f"{path}: {reason}; {remedy}")

    if not path.exists():
        raise refuse("is missing")
    if not path.is_file():
        raise refuse("is not a file")
    size = path.stat().st_size
    if size > max_bytes:
        raise refuse(f"is {size / 2**20:.0f} MiB, more than the {max_bytes / 2**20:.0f} MiB allowed")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            if shapes is not None and (reason := _difference(shapes, names)):
                raise refuse(reason)
            count = 0
            for name in names:
                piece = file.get_slice(name)
                count += math.prod(piece.get_shape())
                if max_numbers is not None and count > max_numbers:
                    raise refuse(f"holds more than the {max_numbers / 1e6:.0f} million numbers allowed")
                if piece.get_dtype() not in numbers:
                    raise refuse(f"'{_short(name)}' is {piece.get_dtype()}, not {' or '.join(numbers)}")
                if shapes is not None and tuple(piece.get_shape()) != tuple(shapes[name]):
                    raise refuse(
                        f"'{_short(name)}' has shape {tuple(piece.get_shape())}, not {tuple(shapes[name])}"
                    )
            tensors = {name: file.get_tensor(name).float() for name in names}
    except SafetensorError as error:
        reason = " ".join(str(error).split())[:120]
        raise refuse(f"is damaged or not a safetensors file ({reason})") from None
    for name, tensor in tensors.items():
        if reason := unusable(tensor):
            raise refuse(f"'{_short(name)}' holds {reason}")
    return tensors, metadata


def unusable(tensor: Tensor) -> str | None:
    """What is wrong with some of the numbers: they are not finite, or beyond MAX_MAGNITUDE."""
    if not torch.isfinite(tensor).all():
        return "numbers that are not finite"
    return f"numbers beyond {MAX_MAGNITUDE:g}" if (tensor.abs() > MAX_MAGNITUDE).any() else None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file beside `path`, then rename, so that no half-written file is left."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # not save_file: its errors hide what the system said, and a full disk should be named
        beside.write_bytes(save(whole, dict(metadata)))
        beside.chmod(0o600)  # a face is for its owner to share
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file beside `path`, then rename."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _difference(shapes: Mapping[str, tuple[int, ...]], names: list[str]) -> str | None:
    if missing := sorted(set(shapes) - set(names)):
        return f"lacks '{_short(missing[0])}'" + (f" and {len(missing) - 1} more" if missing[1:] else "")
    if extra := sorted(set(names) - set(shapes)):
        return f"has the unknown entry '{_short(extra[0])}'"
    return None


def _short(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:100])
