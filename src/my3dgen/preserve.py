"""An optional term of personalization that keeps the rest of the prior's people as they are.

Faces drawn from the prior are rendered with and without the adapter, small and before super-resolution; the
mean squared difference of their features is the term. A face is its person's, and so should a change be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.cameras import orbit
from my3dgen.lora import Adapter
from my3dgen.precision import mixed_precision
from my3dgen.prior.generator import Generator
from my3dgen.prior.render import Sampling

if TYPE_CHECKING:
    from my3dgen.personalize import PersonalizeConfig

FACES = 1024  # drawn once; then they come again
FRAMES = 120
SIDE = 32  # rays across


def preservation(
    original: Generator, generator: Generator, adapter: Adapter | None, config: PersonalizeConfig
) -> Callable[[int, Tensor], Tensor] | None:
    """The term, as a further loss for every `config.preserve_every`-th step; None if its weight is 0.

    `original` is the prior; `generator` with `adapter` is what is trained.
    """
    if not config.preserve:
        return None
    device, own = original.w_avg.device, original.config
    w = strangers(original, FACES, config.seed)
    views = orbit(FRAMES, pivot=own.camera_pivot, radius=own.camera_radius, focal=own.focal).to(device)
    side = min(SIDE, own.neural_rendering_resolution)

    def features(network: Generator, ws: Tensor, camera: Tensor, change: Adapter | None) -> Tensor:
        with mixed_precision(device):
            planes = network.planes(ws, change)
            sampling = Sampling(config.samples, config.samples)
            return network.volume(planes, camera, sampling=sampling, resolution=side).features.float()

    def term(step: int, numbers: Tensor) -> Tensor:
        turn, rest = divmod(step, config.preserve_every)
        if rest:
            return w.new_zeros(())
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        frame, face = int(torch.randint(0, FRAMES, (), generator=rng)), turn % FACES
        ws = w[face : face + 1].expand(-1, own.num_ws, -1)
        camera = views[frame : frame + 1]
        with torch.no_grad():
            before = features(original, ws, camera, None)
        return config.preserve * (features(generator, ws, camera, adapter) - before).square().mean()

    return term


@torch.no_grad()
def strangers(generator: Generator, count: int, seed: int) -> Float[Tensor, "count 1 w_dim"]:
    """Latents of faces that the prior draws, in W, conditioned on the frontal camera."""
    config = generator.config
    rng = torch.Generator().manual_seed(seed * 1_000_003 + 1)
    z = torch.randn(count, config.z_dim, generator=rng).to(generator.w_avg.device)
    return generator.mapping(z, generator.cameras().expand(count, -1))[:, :1].clone()
