"""Training state on disk: small files to carry to another machine, full ones to go on where it stopped.

A folder holds `generator.safetensors` and `encoder.safetensors` (running averages, fp16),
`discriminator.safetensors` (int8) and `training.json`; with `full=True` also `full.safetensors` (all
weights and optimiser moments, fp32). Resuming without the full file restarts the optimisers, which then
warm up. What a folder lacks of generator and encoder is taken from a published prior.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from my3dgen.checkpoint import optimizer_tensors, restore_optimizer
from my3dgen.config import PriorConfig
from my3dgen.errors import FileFormatError, UserError
from my3dgen.int8 import from_int8, to_int8
from my3dgen.pretrain.networks import Networks
from my3dgen.tensor_file import write_tensors, write_text

DESCRIPTION, FULL = "training.json", "full.safetensors"
REMEDY = "restore it from a copy or train again"


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


def half(module: nn.Module) -> dict[str, Tensor]:
    """A module's state in fp16."""
    return {name: tensor.half().contiguous() for name, tensor in module.state_dict().items()}


def save(
    folder: Path, networks: Networks, progress: Progress, optimizers: dict[str, Optimizer], *, full: bool
) -> None:
    """Write the state; each file is complete or absent."""
    write_tensors(folder / "generator.safetensors", half(networks.generator_average), {})
    write_tensors(folder / "encoder.safetensors", half(networks.encoder_average), {})
    write_tensors(folder / "discriminator.safetensors", to_int8(networks.discriminator.state_dict()), {})
    if full:
        tensors = {
            f"{name}/{key}": value
            for name, module in networks.all.items()
            for key, value in module.state_dict().items()
        }
        for name, optimizer in optimizers.items():
            tensors |= {_place(name) + k: v for k, v in optimizer_tensors(optimizer).items()}
        write_tensors(folder / FULL, tensors, {})
    described = {"config": networks.config.to_dict(), "progress": asdict(progress)}
    write_text(folder / DESCRIPTION, json.dumps(described, indent=1))


def describe(folder: Path) -> tuple[PriorConfig, Progress]:
    """What a state was trained as and how far it is.

    Raises UserError if the folder holds no state, FileFormatError if its description is damaged.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder}: holds no training state; give the --out of my3dgen prior train")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        config, counts = described["config"], described["progress"]
        if not all(type(count) in (int, float) for count in counts.values()):
            raise ValueError
        return PriorConfig.from_dict(config), Progress(**counts)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FileFormatError(f"{path}: is damaged or no description of a training; {REMEDY}") from None


def read_weights(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """A file of a state, its dtypes as stored. Raises FileFormatError if it is missing or damaged."""
    if not path.is_file():
        raise FileFormatError(f"{path}: is missing; {REMEDY}")
    try:
        return load_file(path, device=device)
    except SafetensorError:
        raise FileFormatError(f"{path}: is damaged or not a safetensors file; {REMEDY}") from None


def put(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load a file's tensors into a network. Raises FileFormatError if they are not exactly its own."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError:
        raise FileFormatError(f"{path}: does not fit the configuration in {DESCRIPTION}; {REMEDY}") from None


def load(
    folder: Path, networks: Networks, optimizers: dict[str, Optimizer], prior: Path | None = None
) -> tuple[Progress, bool]:
    """Restore what the folder holds; the flag tells whether the optimisers' moments came too.

    A generator or encoder that the folder lacks comes from `prior`, a prior's folder; what neither has
    starts anew. Raises FileFormatError for another configuration.
    """
    config, progress = describe(folder)
    if config != networks.config:
        raise FileFormatError(f"{folder}: training state of another configuration; choose its preset")
    if (folder / FULL).exists():
        tensors = read_weights(folder / FULL, str(networks.device))
        for name, module in networks.all.items():
            put(module, _under(f"{name}/", tensors), folder / FULL)
        for name, optimizer in optimizers.items():
            restore_optimizer(optimizer, _under(_place(name), tensors))
        return progress, True
    for name, modules in {
        "generator": (networks.generator, networks.generator_average),
        "encoder": (networks.encoder, networks.encoder_average),
        "discriminator": (networks.discriminator,),
    }.items():
        places = [place / f"{name}.safetensors" for place in (folder, prior) if place is not None]
        if path := next((place for place in places if place.exists()), None):
            tensors = from_int8(read_weights(path))
            for module in modules:
                put(module, tensors, path)
    return progress, False


def _place(optimizer: str) -> str:
    """What the names of an optimiser's moments begin with in the full file."""
    return f"moments/{optimizer}/"


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
