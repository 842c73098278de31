"""What benches work on: a prior, latents and cameras, none of which is anybody's."""

import gc
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.bench.row import Peaks
from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.errors import UserError
from my3dgen.lora import Adapter, new_adapter
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import EMBEDDED, load_prior


@dataclass(frozen=True, eq=False)
class Scene:
    """Who is drawn from where."""

    ws: Float[Tensor, "batch num_ws w_dim"]
    cameras: Float[Tensor, "batch 25"]

    def only(self, count: int) -> "Scene":
        """The first ones."""
        return Scene(self.ws[:count], self.cameras[:count])


def generator_of(name: str, device: str) -> Generator:
    """The embedded prior of a name, else its preset with random weights. Raises UserError for neither."""
    if (EMBEDDED / name).is_dir():
        return load_prior(name, device).generator
    if name not in PRESETS:
        raise UserError(f"unknown prior '{name}'; choose among {', '.join(PRESETS)}")
    return Generator(PRESETS[name]).to(device).requires_grad_(False)


@torch.no_grad()
def scene_of(generator: Generator, batch: int) -> Scene:
    """Latents of a fixed seed, seen from a row of cameras."""
    config, device = generator.config, generator.w_avg.device
    z = torch.randn(batch, config.z_dim, generator=torch.Generator().manual_seed(0)).to(device)
    yaws = torch.linspace(-0.5, 0.5, batch)
    cameras = camera_from_angles(
        yaws, 0.05, radius=config.camera_radius, pivot=config.camera_pivot, focal=config.focal
    )
    cameras = cameras.to(device)
    return Scene(generator.mapping(z, cameras, psi=0.7), cameras)


@torch.no_grad()
def adapter_of(generator: Generator, seed: int, rank: int = 1) -> Adapter:
    """An adapter that changes the picture: nobody's, but as much work as anybody's."""
    rng = torch.Generator().manual_seed(seed)
    adapter = new_adapter(generator, rank, float(rank), rng).detached()
    for name, tensor in adapter.tensors.items():
        if not name.endswith(".lora_A"):
            tensor += 0.01 * torch.randn(tensor.shape, generator=rng).to(tensor.device)
    return adapter


class Memory:
    """The most memory that torch takes of a GPU from here on."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        if self.cuda:
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peaks(self) -> Peaks:
        """So far; what graphs hold for themselves is included. Nothing on a CPU."""
        if not self.cuda:
            return Peaks()
        return Peaks(torch.cuda.max_memory_reserved() / 1e6, torch.cuda.max_memory_allocated() / 1e6)
