"""Move latents and cameras until renderings match photos; the generator stays as it is.

Most of a step's time goes into the planes, and the rest grows with the rays. So early steps see
a coarse grid of rays, and only the last ones the prior's own, where a perceptual distance is added.
What renders is the same work in all steps of a kind, which a GPU replays as one graph (`Looks`); the latent
space and the optimiser stay outside, and what came of the steps is read every few of them.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.camera_refine import move_cameras
from my3dgen.comparison import rows
from my3dgen.errors import UserError
from my3dgen.graphs import CapturedKinds
from my3dgen.latents import LatentSpace
from my3dgen.lora import Adapter
from my3dgen.losses import absolute_error, gradient_error, shrink
from my3dgen.perceptual import Perceptual
from my3dgen.precision import mixed_precision
from my3dgen.prior.generator import Generator
from my3dgen.prior.render import Sampling
from my3dgen.schedule import projector_ramp
from my3dgen.targets import Targets

READ_EVERY = 10  # steps between two looks at the losses
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


@dataclass(frozen=True, eq=False)
class Views:
    """Latents (one for all, or one a photo), cameras, and the photos their renderings should be."""

    ws: Float[Tensor, "latents num_ws w_dim"]
    cameras: Float[Tensor, "batch 25"]
    photos: Float[Tensor, "batch 3 r r"]
    weights: Float[Tensor, "batch 1 r r"]
    features: tuple[Tensor, ...] = ()
    """Of the photos, where the measure is also perceptual and the photos are known as a whole."""


@dataclass(frozen=True)
class _Look:
    """A kind of step: all that is not a tensor."""

    stage: Stage
    latents: int
    photos: int
    cameras_move: bool
    partly: bool
    """Whether pixels that weigh nothing are those of the picture itself."""


class Looks:
    """Steps of fits with one generator and adapter. A GPU captures those that come often, for all fits."""

    def __init__(
        self, generator: Generator, adapter: Adapter | None = None, perceptual: Perceptual | None = None
    ) -> None:
        self.perceptual = perceptual
        # no method of this object, whose graphs could then only be freed by a collection of garbage
        look = functools.partial(_looked, generator, adapter, perceptual)
        self.steps = CapturedKinds(look, [], capture=generator.w_avg.is_cuda)

    def __call__(self, stage: Stage, views: Views, *, cameras_move: bool, partly: bool) -> dict[str, Tensor]:
        """`losses` of the photos, and the derivatives of their sum: `ws`, and `cameras` if they move.

        The next call may write over them.
        """
        stage = replace(stage, steps=0)  # how many there are makes no difference
        kind = _Look(stage, len(views.ws), len(views.cameras), cameras_move, partly)
        return self.steps(kind, views)

    def photos(
        self, targets: Targets, photos: Sequence[int], stage: Stage
    ) -> Callable[[Tensor], tuple[Tensor, Tensor, tuple[Tensor, ...]]]:
        """What a stage sees of numbered photos, by their places: pictures, weights and features."""
        pictures, weights = (rows(x, torch.as_tensor(list(photos))) for x in targets.at(stage.rays))
        features: tuple[Tensor, ...] = ()
        if self.perceptual is not None and stage.perceptual > 0 and targets.known is None:
            with torch.no_grad():
                features = tuple(self.perceptual.features(_enlarged(pictures)))

        def at(places: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
            if len(places) == len(photos):
                return pictures, weights, features
            return rows(pictures, places), rows(weights, places), tuple(rows(x, places) for x in features)

        return at


def _looked(
    generator: Generator, adapter: Adapter | None, perceptual: Perceptual | None, kind: _Look, views: Views
) -> dict[str, Tensor]:
    ws = views.ws.detach().requires_grad_()
    cameras = views.cameras.detach().requires_grad_(kind.cameras_move)
    with mixed_precision(ws.device):
        raw = seen(generator, generator.planes(ws, adapter), cameras, kind.stage)
    losses = _distance(raw, views.photos, views.weights, views.features, kind.stage, perceptual, kind.partly)
    inputs = [ws, cameras] if kind.cameras_move else [ws]
    gradients = torch.autograd.grad(losses.sum(), inputs)
    return {"losses": losses.detach(), **dict(zip(("ws", "cameras"), gradients, strict=False))}


def fit(
    looks: Looks,
    space: LatentSpace,
    targets: Targets,
    photos: Sequence[int],
    stages: Sequence[Stage],
    *,
    moves: Float[Tensor, "count 6"] | None = None,
    move_cameras_too: bool = True,
    together: int | None = None,
    rng: torch.Generator | None = None,
    on_step: Callable[[int], object] = lambda count: None,
) -> Fit:
    """Fit the `space` to the photos numbered `photos`, one latent each.

    With `together` the space holds one latent for all of them, and every step sees that many photos
    drawn by `rng`: a person's common look, found at the price of one. Learning rates follow
    EG3D spec 5.7. `on_step` is told how many latents moved. Raises UserError when the loss is not a number,
    a few steps late.
    """
    start = rows(targets.cameras, torch.as_tensor(list(photos)))
    moves = torch.zeros(len(photos), 6, device=start.device) if moves is None else moves.clone()
    moves.requires_grad_(move_cameras_too)
    groups = [{"params": [leaf], "lr": rate, "rate": rate} for leaf, rate in space.variables()]
    if move_cameras_too:
        groups.append({"params": [moves], "lr": CAMERA_RATE, "rate": CAMERA_RATE})
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), fused=start.is_cuda)
    total, step = sum(stage.steps for stage in stages), 0
    unread: list[tuple[Tensor, Tensor]] = []
    for stage in stages:
        if not stage.steps:
            continue
        photos_of = looks.photos(targets, photos, stage)
        for _ in range(stage.steps):
            chosen = torch.arange(len(photos))
            if together is not None and together < len(photos):
                chosen = torch.randperm(len(photos), generator=rng)[:together]
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * projector_ramp(step, total)
            ws, own = space.ws(), rows(moves, chosen)
            cameras = move_cameras(rows(start, chosen), own)
            views = Views(ws.detach(), cameras.detach(), *photos_of(chosen))
            out = looks(stage, views, cameras_move=move_cameras_too, partly=targets.known is not None)
            penalty = space.strain().sum() * len(chosen) / len(ws)
            penalty = penalty + CAMERA_WEIGHT * own.square().sum()
            optimizer.zero_grad(set_to_none=True)
            ends, gradients = [penalty, ws], [None, out["ws"]]
            if move_cameras_too:
                ends, gradients = [*ends, cameras], [*gradients, out["cameras"]]
            torch.autograd.backward(ends, gradients)
            optimizer.step()
            unread.append((chosen, out["losses"].clone()))
            step += 1
            on_step(len(ws))
            if step % READ_EVERY == 0 or step == total:
                _check(unread, step, [targets.names[i] for i in photos])
                unread = []
    with torch.no_grad():
        return Fit(space.ws().clone(), move_cameras(start, moves), moves.detach())


def _check(steps: Sequence[tuple[Tensor, Tensor]], done: int, names: Sequence[str]) -> None:
    """Raise UserError for the first of the last steps with a loss that is not a number, naming the photos."""
    values = torch.stack([losses for _, losses in steps]).tolist()
    for i, (chosen, _) in enumerate(steps):
        pairs = zip(chosen.tolist(), values[i], strict=True)
        if bad := [names[int(n)] for n, loss in pairs if not math.isfinite(loss)]:
            step = done - len(steps) + i
            raise UserError(f"the inversion of {', '.join(bad)} diverged at step {step}; leave the photo out")


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
    photos, weights = (rows(x, index) for x in targets.at(stage.rays))
    return _distance(raw, photos, weights, (), stage, perceptual, targets.known is not None)


def _distance(
    raw: Tensor,
    photos: Tensor,
    weights: Tensor,
    features: Sequence[Tensor],
    stage: Stage,
    perceptual: Perceptual | None,
    partly: bool,
) -> Float[Tensor, " batch"]:
    raw = shrink(raw, photos.shape[-1])
    if partly:
        photos = torch.where(weights > 0, photos, raw)
    loss = absolute_error(raw, photos, weights) + 0.5 * gradient_error(raw, photos, weights)
    if perceptual is not None and stage.perceptual > 0:
        # the photo at the rays' size: detail the rays cannot show is not asked for
        if not features:
            with torch.no_grad():
                features = perceptual.features(_enlarged(photos))
        loss = loss + stage.perceptual * perceptual.distance(perceptual.features(_enlarged(raw)), features)
    return loss


def _enlarged(pictures: Float[Tensor, "batch 3 r r"]) -> Float[Tensor, "batch 3 side side"]:
    return F.interpolate(pictures, size=PERCEPTUAL_SIDE, mode="bilinear", align_corners=False)
