"""Move latents and cameras until renderings match photos; the generator stays as it is.

Most of a step's time goes into the planes, and the rest grows with the rays. So early steps see
a coarse grid of rays, and only the last ones the prior's own, where a perceptual distance is added.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.camera_refine import move_cameras
from my3dgen.errors import UserError
from my3dgen.latents import LatentSpace
from my3dgen.lora import Adapter
from my3dgen.losses import absolute_error, gradient_error, shrink
from my3dgen.perceptual import Perceptual
from my3dgen.precision import mixed_precision
from my3dgen.prior.generator import Generator
from my3dgen.prior.render import Sampling
from my3dgen.schedule import projector_ramp
from my3dgen.targets import Targets

CAMERA_RATE = 0.05  # in units of a usual error (camera_refine)
CAMERA_WEIGHT = 0.002
PERCEPTUAL_SIDE = 128  # raw pictures are enlarged to this for the perceptual network


@dataclass(frozen=True)
class Stage:
    """Steps that see pictures in the same way."""

    steps: int
    rays: int
    """Side of the grid of rays."""
    samples: int
    """Coarse samples a ray, and as many fine ones."""
    perceptual: float = 0.0
    """Weight of the perceptual distance."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Latents of the photos (one if they shared it) and their corrected cameras."""

    ws: Float[Tensor, "latents num_ws w_dim"]
    cameras: Float[Tensor, "photos 25"]
    moves: Float[Tensor, "photos 6"]
    """The corrections, as `my3dgen.camera_refine.move_cameras` takes them."""


def fit(
    generator: Generator,
    space: LatentSpace,
    targets: Targets,
    photos: Sequence[int],
    stages: Sequence[Stage],
    *,
    adapter: Adapter | None = None,
    perceptual: Perceptual | None = None,
    moves: Float[Tensor, "count 6"] | None = None,
    move_cameras_too: bool = True,
    together: int | None = None,
    rng: torch.Generator | None = None,
    on_step: Callable[[int], object] = lambda count: None,
) -> Fit:
    """Fit the `space` to the photos numbered `photos`, one latent each.

    With `together` the space holds one latent for all of them, and every step sees that many photos
    drawn by `rng`: a person's common look, found at the price of one. Learning rates follow
    EG3D spec 5.7. `on_step` is told how many latents moved. Raises UserError when the loss is not a number.
    """
    index = torch.as_tensor(list(photos))
    start = targets.cameras[index]
    moves = torch.zeros(len(photos), 6, device=start.device) if moves is None else moves.clone()
    moves.requires_grad_(move_cameras_too)
    groups = [{"params": [leaf], "lr": rate, "rate": rate} for leaf, rate in space.variables()]
    if move_cameras_too:
        groups.append({"params": [moves], "lr": CAMERA_RATE, "rate": CAMERA_RATE})
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    total, step = sum(stage.steps for stage in stages), 0
    for stage in stages:
        for _ in range(stage.steps):
            chosen = torch.arange(len(photos))
            if together is not None and together < len(photos):
                chosen = torch.randperm(len(photos), generator=rng)[:together]
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * projector_ramp(step, total)
            with mixed_precision(start.device):
                ws = space.ws()
                cameras = move_cameras(start[chosen], moves[chosen])
                raw = seen(generator, generator.planes(ws, adapter), cameras, stage)
            losses = distance(raw, targets, index[chosen], stage, perceptual)
            penalty = space.strain().sum() * len(chosen) / len(ws)
            penalty = penalty + CAMERA_WEIGHT * moves[chosen].square().sum()
            objective = losses.sum() + penalty
            if not torch.isfinite(objective):
                names = ", ".join(targets.names[photos[i]] for i in chosen.tolist())
                raise UserError(f"the inversion of {names} diverged at step {step}; leave the photo out")
            optimizer.zero_grad(set_to_none=True)
            objective.backward()
            optimizer.step()
            step += 1
            on_step(len(ws))
    with torch.no_grad():
        return Fit(space.ws().clone(), move_cameras(start, moves), moves.detach())


def seen(
    generator: Generator,
    planes: Float[Tensor, "planes 3 features side side"],
    cameras: Float[Tensor, "batch 25"],
    stage: Stage,
) -> Float[Tensor, "batch 3 r r"]:
    """The raw pictures of a stage."""
    sampling = Sampling(stage.samples, stage.samples)
    return generator.volume(planes, cameras, sampling=sampling, resolution=stage.rays).features[:, :3].float()


def distance(
    raw: Float[Tensor, "batch 3 r r"],
    targets: Targets,
    index: Tensor,
    stage: Stage,
    perceptual: Perceptual | None = None,
) -> Float[Tensor, " batch"]:
    """How far raw pictures are from the photos numbered `index`, by a stage's measure.

    Pictures with more detail than the photos are reduced first. Where a pixel of a photo weighs nothing
    the picture itself stands for it: no measure, however wide it looks around, finds a difference there.
    """
    photos, weights = (x[index] for x in targets.at(stage.rays))
    raw = shrink(raw, photos.shape[-1])
    if targets.known is not None:
        photos = torch.where(weights > 0, photos, raw)
    loss = absolute_error(raw, photos, weights) + 0.5 * gradient_error(raw, photos, weights)
    if perceptual is not None and stage.perceptual > 0:
        # the photo at the rays' size: detail the rays cannot show is not asked for
        with torch.no_grad():
            theirs = perceptual.features(_enlarged(photos))
        loss = loss + stage.perceptual * perceptual.distance(perceptual.features(_enlarged(raw)), theirs)
    return loss


def _enlarged(pictures: Float[Tensor, "batch 3 r r"]) -> Float[Tensor, "batch 3 side side"]:
    return F.interpolate(pictures, size=PERCEPTUAL_SIDE, mode="bilinear", align_corners=False)
