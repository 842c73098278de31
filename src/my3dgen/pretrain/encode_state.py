"""An encoder's training on disk: one file from which it goes on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from my3dgen.checkpoint import optimizer_tensors, restore_optimizer
from my3dgen.errors import FileFormatError, UserError
from my3dgen.pretrain.state import put, read_weights
from my3dgen.tensor_file import write_tensors

STATE = "state.safetensors"


@dataclass
class Progress:
    """How far training has come, all runs together."""

    steps: int = 0
    images: int = 0


def save_state(
    path: Path,
    sha256: str,
    progress: Mapping[str, int],
    live: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write everything that training of the prior `sha256` needs to go on; whole or not at all."""
    tensors = {f"live/{k}": v for k, v in live.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in average.state_dict().items()}
    tensors |= {f"moments/{k}": v for k, v in optimizer_tensors(optimizer).items()}
    write_tensors(path, tensors, {"prior": sha256, "progress": json.dumps(dict(progress))})


def load_state(
    path: Path, sha256: str, live: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Put back what `save_state` wrote. Raises UserError for another prior's, FileFormatError if damaged."""
    tensors = read_weights(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("prior", sha256) != sha256:
        raise UserError(f"{path}: is the training for another prior; give another --out or delete it")
    try:
        progress = Progress(**json.loads(metadata["progress"]))
    except (KeyError, ValueError, TypeError):
        raise FileFormatError(f"{path}: does not say how far training is; delete it to train anew") from None
    under = lambda start: {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}  # noqa: E731
    put(live, under("live/"), path)
    put(average, under("average/"), path)
    restore_optimizer(optimizer, under("moments/"))
    return progress
