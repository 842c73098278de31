"""Change an attribute of a person, such as the smile: along a direction of the prior."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.alpha import decode, edit_alphas, outside, project
from my3dgen.apps.render import check_size, resample
from my3dgen.apps.sheet import to_image
from my3dgen.apps.subject import Subject, draw, subject_of
from my3dgen.errors import UserError
from my3dgen.person import Person
from my3dgen.prior.store import Prior

Space = Literal["alpha", "w"]
STRENGTH_LIMIT = 20.0


@dataclass(frozen=True)
class Edited:
    """One picture of an edit."""

    strength: float
    image: Image.Image
    outside: float | None
    """How far the lowest anchor weight lies below -beta, 0 inside the dilated hull; None in W."""
    reach: float
    """Share of the direction's length that the space could express; 1 in W."""


@dataclass(frozen=True)
class Edit:
    """An edit ready to be drawn."""

    strengths: tuple[float, ...]
    ws: Float[Tensor, "strengths num_ws w_dim"]
    outside: tuple[float, ...] | None
    reach: float
    """Share of the direction's length that the chosen space can express; 1 in W."""


def edit(
    prior: Prior,
    person: Person | None = None,
    *,
    direction: str = "smile",
    strengths: Sequence[float | int] = (-2, -1, 0, 1, 2),
    space: Space = "w",
    beta: float | int = 0.03,
    keep_inside: bool = False,
    anchor: int | None = None,
    alpha: Mapping[int, float | int] | None = None,
    yaw: float | int = 0.0,
    pitch: float | int = 0.0,
    size: int | None = None,
    resolution: int | None = None,
    seed: int = 0,
) -> Iterator[Edited]:
    """Pictures of one appearance at several strengths of an edit, drawn as they are taken.

    Strength 1 is one standard deviation of the attribute over the prior's faces. `space` is `w`, plain
    w + strength * d, or `alpha`, where the direction is replaced by the nearest one the person's anchors
    span, so that the edit shows the person's own way of doing it (EG3D spec 5.8). That keeps the likeness
    about twice as well for the same strength but is weaker, and does nothing for what the photos never
    show; so `w` is the default, and each result's `reach` says how much of the direction is left. There,
    `keep_inside` moves points beyond the hull dilated by `beta` back to the nearest one in it; each result
    says how far outside it lies. Angles in radians.

    Raises UserError for a direction the prior does not have or values out of range.
    """
    check_size(size)
    if not 0 <= beta <= 1:
        raise UserError(f"beta {beta:g} is out of range; choose 0 to 1")
    subject = subject_of(prior, person, seed=seed, wanted=[anchor or 0, *(alpha or {})])
    plan = plan_edit(
        subject,
        subject.alpha(anchor, alpha),
        find(prior, direction),
        [float(strength) for strength in strengths],
        "w" if person is None else space,
        float(beta),
        keep_inside,
    )
    camera = subject.camera(float(yaw), float(pitch))

    def pictures() -> Iterator[Edited]:
        for index, (strength, latent) in enumerate(zip(plan.strengths, plan.ws.split(1), strict=True)):
            (one,) = draw(subject, latent, camera, resolution)
            beyond = None if plan.outside is None else plan.outside[index]
            yield Edited(strength, resample(to_image(one.image), size), beyond, plan.reach)

    return pictures()


def find(prior: Prior, direction: str) -> Float[Tensor, " w_dim"] | Float[Tensor, "num_ws w_dim"]:
    """The prior's direction of this name. Raises UserError with the names there are."""
    known = prior.directions or {}
    if not known:
        raise UserError(
            f"prior '{prior.name}' has no edit directions; `my3dgen prior directions {prior.name}` finds some"
        )
    if direction not in known:
        raise UserError(
            f"prior '{prior.name}' has no direction '{direction}'; it has: {', '.join(sorted(known))}"
        )
    return known[direction]


@torch.no_grad()
def plan_edit(
    subject: Subject,
    alpha: Float[Tensor, " anchors"],
    direction: Float[Tensor, " w_dim"] | Float[Tensor, "num_ws w_dim"],
    strengths: Sequence[float],
    space: Space,
    beta: float,
    keep_inside: bool,
) -> Edit:
    """The latents of an edit that starts at the appearance `alpha`. Raises UserError as `edit` does."""
    if bad := [strength for strength in strengths if not abs(strength) <= STRENGTH_LIMIT]:
        raise UserError(
            f"strength {bad[0]:g} is out of range; choose {-STRENGTH_LIMIT:g} to {STRENGTH_LIMIT:g}"
        )
    t = torch.tensor(list(strengths)).to(alpha)
    direction = direction.to(subject.anchors)
    if space == "w":
        ws = decode(alpha[None], subject.anchors) + t[:, None, None] * direction
        return Edit(tuple(strengths), ws, None, 1.0)
    if len(subject.anchors) < 2:
        raise UserError("an edit in alpha-space needs at least two anchors; use --space w")
    gamma = edit_alphas(direction, subject.anchors)
    alphas = alpha + t[:, None] * gamma
    beyond = tuple(float(x) for x in outside(alphas, beta))
    ws = decode(alphas, subject.anchors)
    if keep_inside:
        ws = decode(project(ws, subject.anchors, beta), subject.anchors)
    within = decode(gamma[None], subject.anchors)[0].norm() / direction.expand_as(subject.anchors[0]).norm()
    return Edit(tuple(strengths), ws, beyond, float(within))
