"""Training state on disk: small files to carry to another machine, full ones to go on where it stopped.

A folder holds `generator.safetensors` and `encoder.safetensors` (running averages, fp16),
`discriminator.safetensors` (int8), `latents.safetensors` (mean and covariance) and `training.json`; with
`full=True` also `full.safetensors` (all weights and optimiser moments, fp32). Resuming without the full
file restarts the optimisers, which then warm up. What a folder lacks of generator and encoder is taken
from a published prior. A state of training on pictures has neither encoder nor latents.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from my3dgen.checkpoint import optimizer_tensors, restore_optimizer
from my3dgen.config import PriorConfig
from my3dgen.errors import FileFormatError, UserError
from my3dgen.int8 import from_int8, to_int8
from my3dgen.pretrain.gan import AdversarialNetworks
from my3dgen.pretrain.networks import Networks
from my3dgen.prior.directions import draw_latents
from my3dgen.tensor_file import write_tensors, write_text

DESCRIPTION, FULL, LATENTS = "training.json", "full.safetensors", "latents.safetensors"
REMEDY = "restore it from a copy or train again"
KINDS = {"heads": "synthetic heads; leave out --data", "pictures": "a folder of pictures; give it as --data"}
"""What a state may have been trained on, and how to go on with it."""
Trainees = Networks | AdversarialNetworks


@dataclass
class Progress:
    """How far training has come."""

    images: int = 0
    """Images the networks have been trained on, all runs together."""
    adversarial_images: int = 0
    """Those of them with the adversarial term."""
    encoder_images: int = 0
    """Those of them that only the encoder has learned from."""
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
    folder: Path, networks: Trainees, progress: Progress, optimizers: dict[str, Optimizer], *, full: bool
) -> None:
    """Write the state; each file is complete or absent."""
    for name, network in networks.averages.items():
        write_tensors(folder / f"{name}.safetensors", half(network), {})
    write_tensors(folder / "discriminator.safetensors", to_int8(networks.discriminator.state_dict()), {})
    if networks.latents is not None:
        spread = {"mean": networks.latents.mean, "covariance": networks.latents.covariance}
        write_tensors(folder / LATENTS, spread, {})
    if full:
        tensors = {
            f"{name}/{key}": value
            for name, module in networks.all.items()
            for key, value in module.state_dict().items()
        }
        for name, optimizer in optimizers.items():
            tensors |= {_place(name) + k: v for k, v in optimizer_tensors(optimizer).items()}
        write_tensors(folder / FULL, tensors, {})
    described = {
        "kind": networks.kind,
        "config": networks.config.to_dict(),
        "progress": asdict(progress),
    }
    write_text(folder / DESCRIPTION, json.dumps(described, indent=1))


def describe(folder: Path) -> tuple[PriorConfig, Progress]:
    """What a state was trained as and how far it is.

    Raises UserError if the folder holds no state, FileFormatError if its description is damaged.
    """
    return _read(folder)[1:]


def kind_of(folder: Path) -> str:
    """What a state was trained on: "heads" or "pictures". Raises as `describe`."""
    return _read(folder)[0]


def check_kind(folder: Path, wanted: str) -> None:
    """Raise UserError if a state was trained on something else than `wanted`."""
    if (kind := kind_of(folder)) != wanted:
        raise UserError(f"{folder}: was trained on {KINDS[kind]}, or choose another --out")


def _read(folder: Path) -> tuple[str, PriorConfig, Progress]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder}: holds no training state; give the --out of my3dgen prior train")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        config, counts = described["config"], described["progress"]
        kind = described.get("kind", "heads")
        if not all(type(count) in (int, float) for count in counts.values()) or kind not in KINDS:
            raise ValueError
        return kind, PriorConfig.from_dict(config), Progress(**counts)
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
    folder: Path, networks: Trainees, optimizers: dict[str, Optimizer], prior: Path | None = None
) -> tuple[Progress, bool]:
    """Restore what the folder holds; the flag tells whether the optimisers' moments came too.

    A generator or encoder that the folder lacks comes from `prior`, a prior's folder, and so does the
    Gaussian of latents, from its mapping; what neither has starts anew. Raises FileFormatError for another
    configuration, UserError for a state of the other kind.
    """
    check_kind(folder, networks.kind)
    config, progress = describe(folder)
    if config != networks.config:
        raise FileFormatError(f"{folder}: training state of another configuration; choose its preset")
    if networks.latents is not None and (folder / LATENTS).exists():
        networks.latents.set(*read_latents(folder, config.w_dim))
    if (folder / FULL).exists():
        tensors = read_weights(folder / FULL, str(networks.device))
        for name, module in networks.all.items():
            put(module, _under(f"{name}/", tensors), folder / FULL)
        for name, optimizer in optimizers.items():
            restore_optimizer(optimizer, _under(_place(name), tensors))
        return progress, True
    for name in (*networks.averages, "discriminator"):
        modules = [networks.all[name], *([networks.averages[name]] if name in networks.averages else [])]
        places = [place / f"{name}.safetensors" for place in (folder, prior) if place is not None]
        if path := next((place for place in places if place.exists()), None):
            tensors = from_int8(read_weights(path))
            for module in modules:
                put(module, tensors, path)
            if name == "generator" and networks.latents and not (folder / LATENTS).exists():
                latents = draw_latents(networks.generator, 20_000)
                networks.latents.set(latents.mean(0), torch.cov(latents.T))
    return progress, False


def read_latents(folder: Path, width: int) -> tuple[Float[Tensor, " w_dim"], Float[Tensor, "w_dim w_dim"]]:
    """Mean and covariance of the latents in a state's folder. Raises FileFormatError if they are damaged."""
    path = folder / LATENTS
    tensors = read_weights(path)
    mean, covariance = tensors.get("mean"), tensors.get("covariance")
    if mean is None or covariance is None or (*mean.shape, *covariance.shape) != (width,) * 3:
        raise FileFormatError(f"{path}: holds no mean and covariance of {width} numbers; {REMEDY}")
    return mean, covariance


def _place(optimizer: str) -> str:
    """What the names of an optimiser's moments begin with in the full file."""
    return f"moments/{optimizer}/"


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
