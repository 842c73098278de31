"""One picture of a head to W+ latents of a frozen prior, many heads side by side: the long way, for figures.

`my3dgen.fit` is made for a CPU and a person's album: few steps, coarse rays first. This one asks what a
prior can show at all: every step sees the whole picture, cameras are exact and stay.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.errors import UserError
from my3dgen.latents import LatentStatistics
from my3dgen.losses import absolute_error
from my3dgen.perceptual import Perceptual
from my3dgen.precision import mixed_precision
from my3dgen.prior.generator import Generator
from my3dgen.schedule import projector_ramp
from my3dgen.targets import Targets, world_of

Images = Float[Tensor, "batch 3 size size"]
Latents = Float[Tensor, "batch num_ws w_dim"]


@dataclass(frozen=True, kw_only=True)
class InversionRule:
    """What is minimised, and how fast. Lengths are in units of the prior's own spread."""

    rate: float = 0.05
    """Adam's learning rate at its height; it rises and falls as in EG3D spec 5.7."""
    perceptual: float = 0.1
    """Weight of the perceptual distance beside the absolute error, as when photos are inverted."""
    stray: float = 0.002
    """Weight of the mean squared distance from the start."""
    apart: float = 0.5
    """Weight of the layers' mean squared distance from their mean; 1 is as far as heads differ."""


def invert_wplus(
    generator: Generator,
    images: Images,
    cameras: Float[Tensor, "batch 25"],
    masks: Float[Tensor, "batch 1 size size"],
    start: Latents,
    steps: int,
    *,
    statistics: LatentStatistics,
    perceptual: Perceptual | None,
    rule: InversionRule | None = None,
    on_step: Callable[[int], object] = lambda step: None,
) -> Latents:
    """W+ latents whose pictures from `cameras` come near to `images` in [-1, 1].

    Heads do not influence each other. Pixels count as when photos are inverted: the head more than the
    background, eyes and mouth most. The layers are held together, for what one view leaves open they would
    settle each on its own, and other views would fall apart. Deterministic up to the device's rounding. The
    device is waited for once, at the end. Raises UserError when the result is not finite.
    """
    rule = rule or InversionRule()
    size = images.shape[-1]
    names = tuple(str(index) for index in range(len(images)))
    photos, weights = Targets(images, masks, cameras, names, world_of(generator.config)).at(size)
    with torch.no_grad():
        wanted = None if perceptual is None else perceptual.features(photos)
    moved = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([moved], lr=rule.rate, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rule.rate * projector_ramp(step, steps)
        ws = start + moved @ statistics.spread.T
        loss = strain(ws, moved, statistics, rule).sum()
        with mixed_precision(images.device):
            made = generator.synthesis(ws, cameras, noise="none").image
        made = made.float()
        loss = loss + absolute_error(made, photos, weights).sum()
        if perceptual is not None and wanted is not None:
            loss = loss + rule.perceptual * perceptual.distance(perceptual.features(made), wanted).sum()
        (moved.grad,) = torch.autograd.grad(loss, [moved])
        optimizer.step()
        on_step(step)
    with torch.no_grad():
        ws = start + moved @ statistics.spread.T
    if not torch.isfinite(ws).all():
        raise UserError("the inversion diverged; the prior may be damaged")
    return ws


def strain(
    ws: Latents, moved: Latents, statistics: LatentStatistics, rule: InversionRule
) -> Float[Tensor, " batch"]:
    """The penalty of straying from the start and of layers that drift apart."""
    variance = statistics.spread.square().sum()
    drift = (ws - ws.mean(1, keepdim=True)).square().sum(2).mean(1) / variance
    return rule.stray * moved.square().mean((1, 2)) + rule.apart * drift
