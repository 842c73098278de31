"""Volume rendering in two passes (EG3D spec 1.13): a field of colour and density, along rays."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.config import PriorConfig
from my3dgen.ops.fused_render import FusedField, RaySums
from my3dgen.prior.importance import importance_depths
from my3dgen.prior.march import (
    depth_of,
    interval_weights,
    mean_depth,
    on_background,
    sample_weights,
    weighted_sum,
)
from my3dgen.prior.rays import Points, box_limits, filled_limits, stratified_depths

Field = Callable[[Points], tuple[Float[Tensor, "batch points colours"], Float[Tensor, "batch points"]]]
"""(colours in about [0, 1], raw densities) at points in world units."""


@dataclass(frozen=True)
class Sampling:
    """How finely rays are sampled."""

    coarse: int
    """Evenly spread samples per ray."""
    fine: int
    """Further samples per ray where the coarse ones found density; 0 for none."""
    rays_at_once: int | None = None
    """Rays per image rendered together, to bound memory; None for all. Results do not change in
    the deterministic mode; with a generator, the draws fall differently."""

    @classmethod
    def of(cls, config: PriorConfig) -> "Sampling":
        """The sampling a prior was trained with."""
        return cls(config.depth_resolution, config.depth_resolution_importance)


@dataclass(frozen=True)
class RenderedRays:
    """What rays meet. `depth` is the distance along the ray, +inf where nothing is met."""

    colours: Float[Tensor, "batch rays colours"]
    depth: Float[Tensor, "batch rays"]
    opacity: Float[Tensor, "batch rays"]
    nearest: Float[Tensor, ""]
    """Smallest distance of any sample."""
    farthest: Float[Tensor, ""]
    """Largest distance of any sample."""

    def clamped_depth(self) -> Float[Tensor, "batch rays"]:
        """Depth within the distances of all samples, as EG3D returns it."""
        return self.depth.clamp(self.nearest, self.farthest)


def render_rays(
    field: Field,
    origins: Points,
    directions: Points,
    config: PriorConfig,
    sampling: Sampling,
    rng: torch.Generator | None,
    fused: FusedField | None = None,
) -> RenderedRays:
    """Render rays through a field.

    `fused` is the same field as data: where it serves, a few kernels do the work, which never write what
    they find at samples; otherwise `field` is asked.

    `rng` draws the jitter and the quantiles; None is the deterministic mode: jitter 0.5 and the
    quantiles (k + 0.5) / fine.
    """
    near, far = _limits(origins, directions, config)
    size = sampling.rays_at_once or origins.shape[1]
    chunks = []
    for first in range(0, origins.shape[1], size):
        part = slice(first, first + size)
        start, end = (x[:, part] if isinstance(x, Tensor) else x for x in (near, far))
        rays = origins[:, part], directions[:, part], start, end
        chunks.append(_render_chunk(field, *rays, config, sampling, rng, fused))
    if len(chunks) == 1:
        return chunks[0]
    return RenderedRays(
        colours=torch.cat([chunk.colours for chunk in chunks], 1),
        depth=torch.cat([chunk.depth for chunk in chunks], 1),
        opacity=torch.cat([chunk.opacity for chunk in chunks], 1),
        nearest=torch.stack([chunk.nearest for chunk in chunks]).amin(),
        farthest=torch.stack([chunk.farthest for chunk in chunks]).amax(),
    )


def _render_chunk(
    field: Field,
    origins: Points,
    directions: Points,
    near: Tensor | float,
    far: Tensor | float,
    config: PriorConfig,
    sampling: Sampling,
    rng: torch.Generator | None,
    fused: FusedField | None,
) -> RenderedRays:
    jitter = _jitter((*origins.shape[:2], sampling.coarse), origins, rng)
    depths = stratified_depths(near, far, jitter, disparity=config.disparity_space_sampling)
    u = _quantiles((*origins.shape[:2], sampling.fine), origins, rng) if sampling.fine else None
    if fused is not None and fused.serves(origins, directions, sampling.coarse, sampling.fine):
        drawn = None if rng is None else u
        if isinstance(near, Tensor):  # where no ray meets the box, the limits are in reverse
            depths = depths.sort(-1).values
        return _of_sums(fused.render(origins, directions, depths, sampling.fine, drawn), config)
    colours, densities = _evaluate(field, origins, directions, depths)
    passes = [colours]  # of the coarse and the fine samples
    if u is not None:
        fine = importance_depths(depths, interval_weights(densities.detach(), depths), u)
        fine_colours, fine_densities = _evaluate(field, origins, directions, fine)
        depths = torch.cat([depths, fine], -1)
        densities = torch.cat([densities, fine_densities], -1)
        passes.append(fine_colours)
    depths, order = depths.sort(dim=-1)
    weights = interval_weights(densities.gather(-1, order), depths)
    opacity = weights.sum(-1)
    # colours stay where they are: it is cheaper to bring the weights back to them
    back = torch.zeros_like(depths).scatter(-1, order, sample_weights(weights))
    parts = back.split([colours.shape[2] for colours in passes], dim=-1)
    colour = torch.stack([weighted_sum(*pair) for pair in zip(parts, passes, strict=True)]).sum(0)
    return RenderedRays(
        colours=on_background(colour, opacity, white_back=config.white_back),
        depth=mean_depth(weights, depths),
        opacity=opacity,
        nearest=depths.amin(),
        farthest=depths.amax(),
    )


def _of_sums(sums: RaySums, config: PriorConfig) -> RenderedRays:
    return RenderedRays(
        colours=on_background(sums.colours, sums.opacity, white_back=config.white_back),
        depth=depth_of(sums.moment, sums.opacity),
        opacity=sums.opacity,
        nearest=sums.nearest,
        farthest=sums.farthest,
    )


def _limits(
    origins: Points, directions: Points, config: PriorConfig
) -> tuple[Tensor | float, Tensor | float]:
    if config.ray_start == "auto" or config.ray_end == "auto":
        return filled_limits(*box_limits(origins, directions, config.box_warp))
    return config.ray_start, config.ray_end


def _evaluate(field: Field, origins: Points, directions: Points, depths: Tensor) -> tuple[Tensor, Tensor]:
    points = origins[:, :, None] + depths[..., None] * directions[:, :, None]
    colours, densities = field(points.flatten(1, 2))
    return colours.unflatten(1, depths.shape[1:]), densities.unflatten(1, depths.shape[1:])


def _jitter(shape: tuple[int, ...], like: Tensor, rng: torch.Generator | None) -> Tensor:
    if rng is None:
        return torch.full(shape, 0.5, device=like.device, dtype=like.dtype)
    return torch.rand(shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)


def _quantiles(shape: tuple[int, ...], like: Tensor, rng: torch.Generator | None) -> Tensor:
    if rng is None:
        even = torch.arange(shape[-1], device=like.device, dtype=like.dtype)
        return ((even + 0.5) / shape[-1]).expand(shape)
    return torch.rand(shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)
