"""Training state on disk: small files to carry to another machine, full ones to go on where it stopped.

A folder holds `generator.safetensors` and `encoder.safetensors` (running averages, fp16),
`discriminator.safetensors` (int8) and `training.json`; with `full=True` also `full.safetensors` (all
weights and optimiser moments, fp32). Resuming without the full file restarts the optimisers, which then
warm up. What a folder lacks of generator and encoder is taken from a published prior.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from my3dgen.errors import FileFormatError
from my3dgen.int8 import from_int8, to_int8
from my3dgen.pretrain.networks import Networks


@dataclass
class Progress:
    """How far training has come."""

    images: int = 0
    """Images the generator has been trained on, all runs together."""
    adversarial_images: int = 0
    """Those of them with the adversarial term."""
    steps: int = 0
    """Optimiser steps, all runs together."""
    next_seed: int = 0
    """First head seed not yet rendered for training."""
    seconds: float = 0.0
    """Wall-clock time of training, all runs together."""
    runs: int = 0
    """Times training was started."""


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    beside = path.with_name(f".{path.name}.part")
    save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, beside)
    beside.replace(path)


def half(module: nn.Module) -> dict[str, Tensor]:
    """A module's state in fp16."""
    return {name: tensor.half().contiguous() for name, tensor in module.state_dict().items()}


def _moments(name: str, optimizer: Optimizer) -> dict[str, Tensor]:
    out = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            out[f"{name}.{index}.{key}"] = torch.as_tensor(value)
    return out


def save(
    folder: Path, networks: Networks, progress: Progress, optimizers: dict[str, Optimizer], *, full: bool
) -> None:
    """Write the state; each file is complete or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "generator.safetensors", half(networks.generator_average))
    _write(folder / "encoder.safetensors", half(networks.encoder_average))
    _write(folder / "discriminator.safetensors", to_int8(networks.discriminator.state_dict()))
    if full:
        tensors = {
            f"{name}/{key}": value
            for name, module in networks.all.items()
            for key, value in module.state_dict().items()
        }
        for name, optimizer in optimizers.items():
            tensors |= {f"optimizer/{key}": value for key, value in _moments(name, optimizer).items()}
        _write(folder / "full.safetensors", tensors)
    beside = folder / ".training.json.part"
    beside.write_text(
        json.dumps({"config": networks.config.to_dict(), "progress": asdict(progress)}, indent=1)
    )
    beside.replace(folder / "training.json")


def load(
    folder: Path, networks: Networks, optimizers: dict[str, Optimizer], prior: Path | None = None
) -> tuple[Progress, bool]:
    """Restore what the folder holds; the flag tells whether the optimisers' moments came too.

    A generator or encoder that the folder lacks comes from `prior`, a prior's folder; what neither has
    starts anew. Raises FileFormatError for another configuration.
    """
    described = json.loads((folder / "training.json").read_text())
    if described["config"] != networks.config.to_dict():
        raise FileFormatError(f"{folder}: training state of another configuration; choose its preset")
    progress = Progress(**described["progress"])
    if (folder / "full.safetensors").exists():
        tensors = load_file(folder / "full.safetensors", device=str(networks.device))
        for name, module in networks.all.items():
            prefix = f"{name}/"
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
        for name, optimizer in optimizers.items():
            _restore(optimizer, f"optimizer/{name}.", tensors)
        return progress, True
    for name, modules in {
        "generator": (networks.generator, networks.generator_average),
        "encoder": (networks.encoder, networks.encoder_average),
        "discriminator": (networks.discriminator,),
    }.items():
        places = [place / f"{name}.safetensors" for place in (folder, prior) if place is not None]
        if path := next((place for place in places if place.exists()), None):
            tensors = from_int8(load_file(path))
            for module in modules:
                module.load_state_dict(tensors)
    return progress, False


def _restore(optimizer: Optimizer, prefix: str, tensors: dict[str, Tensor]) -> None:
    described = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, name = key.removeprefix(prefix).split(".", 1)
            state.setdefault(int(index), {})[name] = value
    described["state"] = state
    optimizer.load_state_dict(described)
