"""A person's tensors as int8: a quarter of float32, half of fp16.

Large tensors are rounded to 255 steps of their row's largest number. A row is what belongs together: a
component of a low-rank factor (a row of A, a column of B), a latent, or the whole of a constant or bias.
The scales of all rows are one vector, `scales`, in the order of the tensors' names: as entries of their own
their names would take more room than they do. Tensors of fewer than SMALLEST numbers stay as they are, so
shapes alone say where the scales go.
"""

import torch
from torch import Tensor

from my3dgen.errors import FileFormatError
from my3dgen.int8 import from_int8, to_int8

SCALES = "scales"
SMALLEST = 64


def narrow(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Large tensors in int8, the rest as given, and `scales`."""
    narrowed, scales = dict(tensors), []
    for name in large(tensors):
        stored = to_int8({name: _rows(name, tensors[name])}, smallest=0)
        narrowed[name] = _shaped(name, stored[name], tensors[name].shape)
        scales.append(stored[f"{name}.scale"])
    return narrowed | {SCALES: torch.cat(scales) if scales else torch.zeros(0)}


def widen(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `narrow` was given, as near as int8 can tell; the integers may already be floats.

    Raises FileFormatError when the scales are not as many as the rows.
    """
    rest = {name: tensor for name, tensor in tensors.items() if name != SCALES}
    rows = {name: _rows(name, rest[name]) for name in large(rest)}
    counts = [len(tensor) for tensor in rows.values()]
    if tuple(tensors[SCALES].shape) != (sum(counts),):
        raise FileFormatError(f"has {tensors[SCALES].numel()} scales for {sum(counts)} rows of int8")
    for (name, value), scale in zip(rows.items(), tensors[SCALES].split(counts), strict=True):
        wide = from_int8({name: value, f"{name}.scale": scale})[name]
        rest[name] = _shaped(name, wide, rest[name].shape)
    return rest


def large(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that are stored in int8."""
    return sorted(name for name, tensor in tensors.items() if tensor.numel() >= SMALLEST)


def _rows(name: str, tensor: Tensor) -> Tensor:
    """As a matrix whose rows have a scale each."""
    if name.endswith(".delta") or tensor.ndim < 2:
        return tensor.reshape(1, -1)
    return tensor.mT if _in_columns(name, tensor.shape) else tensor.flatten(0, -2)


def _shaped(name: str, rows: Tensor, shape: torch.Size) -> Tensor:
    """`_rows` undone."""
    return (rows.mT if _in_columns(name, shape) else rows).reshape(shape)


def _in_columns(name: str, shape: torch.Size) -> bool:
    return name.endswith(".lora_B") and len(shape) == 2
