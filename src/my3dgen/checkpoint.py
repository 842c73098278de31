"""Unfinished work on disk: tensors and a JSON state in one safetensors file, tied to what it belongs to."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from my3dgen.progress import say


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` and `state` (JSON values) as they were given to `save_checkpoint`."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def fingerprint(*parts: Tensor | str | int | float | Mapping | list | tuple | None) -> str:
    """A short name for exactly this input: equal parts, equal name. Tensors count bit by bit."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(part.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def save_checkpoint(
    path: Path, belongs_to: str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Write beside and rename. `belongs_to` is the fingerprint of the work's inputs and options."""
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # not save_file: its errors hide what the system said, and a full disk should be named
        beside.write_bytes(save(whole, {"belongs_to": belongs_to, "state": json.dumps(dict(state))}))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load_checkpoint(path: Path, belongs_to: str) -> Checkpoint | None:
    """The unfinished work at `path`, or None when there is none that belongs to `belongs_to`.

    Work on other photos, with other options or in a damaged file is not continued; one line says so.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("belongs_to") != belongs_to:
                say(f"{path.name} was begun with other photos or options; starting anew")
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Checkpoint(tensors, json.loads(metadata["state"]))
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError):
        say(f"{path.name} is damaged; starting anew")
        return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as tensors to save. Leaves that had no gradient yet have none."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": tensor for i, entry in state.items() for key, tensor in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put saved state back into an optimiser of the same leaves."""
    whole = optimizer.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            whole["state"].setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict(whole)
