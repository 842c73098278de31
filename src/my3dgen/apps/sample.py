"""New appearances of a person: random points of the alpha-space that the anchors span."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.alpha import decode, sample_alphas
from my3dgen.apps.render import check_size, resample
from my3dgen.apps.sheet import to_image
from my3dgen.apps.subject import draw, subject_of
from my3dgen.errors import UserError
from my3dgen.person import Person
from my3dgen.prior.store import Prior

COUNT_LIMIT = 10_000
SUPPORT_LIMIT = 10_000


@dataclass(frozen=True)
class Sample:
    """One new appearance."""

    alpha: dict[int, float]
    """Weights of the anchors it is made of; they sum to 1."""
    yaw: float
    """Radians."""
    image: Image.Image


def sample(
    prior: Prior,
    person: Person | None = None,
    *,
    count: int = 12,
    support: int | None = 3,
    beta: float | int = 0.0,
    weights: Literal["uniform", "dirichlet"] = "uniform",
    yaw_range: float | int = 0.0,
    size: int | None = None,
    resolution: int | None = None,
    seed: int = 0,
) -> Iterator[Sample]:
    """Random appearances, drawn as they are taken; the same seed gives the same ones.

    Each mixes `support` random anchors: three (MyStyle's rule; EG3D spec 5.8), or all of them (None), which
    comes out near the mean. `weights` are uniforms divided by their sum, or a flat Dirichlet, which reaches
    nearer to single anchors. `beta` > 0 widens the triangle about its centre until its corners have two
    weights of -beta: more variety, less likeness. The camera's
    yaw is uniform within `yaw_range` (radians). Without a person each is a face of the prior, from seeds
    seed, seed + 1...

    Raises UserError for values out of range, before the first picture.
    """
    check_size(size)
    if not 1 <= count <= COUNT_LIMIT:
        raise UserError(f"{count} samples is out of range; choose 1 to {COUNT_LIMIT}")
    if not 0 <= beta <= 1:
        raise UserError(f"beta {beta:g} is out of range; choose 0 (inside the anchors' hull) to 1")
    if support is not None and not 1 <= support <= SUPPORT_LIMIT:
        raise UserError(f"support {support} is out of range; choose 1 to {SUPPORT_LIMIT} anchors")
    subject = subject_of(prior, person, seed=seed, wanted=range(count))
    rng = torch.Generator().manual_seed(seed)
    if person is None:
        alphas = torch.eye(count)
    else:
        alphas = sample_alphas(count, len(subject.anchors), rng, support=support, weights=weights)
        alphas = widen(alphas, float(beta))
    yaws = (2 * torch.rand(count, generator=rng) - 1) * yaw_range
    ws, cameras = decode(alphas.to(subject.anchors), subject.anchors), subject.camera(yaws)

    def pictures() -> Iterator[Sample]:
        for alpha, yaw, latent, camera in zip(alphas, yaws, ws.split(1), cameras.split(1), strict=True):
            (one,) = draw(subject, latent, camera, resolution)
            parts = {int(k): float(alpha[k]) for k in alpha.nonzero()[:, 0]}
            yield Sample(parts, float(yaw), resample(to_image(one.image), size))

    return pictures()


def widen(alphas: Float[Tensor, "batch anchors"], beta: float) -> Float[Tensor, "batch anchors"]:
    """Points of the hull of their own anchors moved into the hull dilated by `beta`; sums stay 1."""
    support = alphas > 0
    return torch.where(support, alphas * (1 + support.sum(1, keepdim=True) * beta) - beta, 0)
