"""Change attributes of a person, such as the smile: along directions of the prior."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.alpha import decode, edit_alphas, outside, project, spread
from my3dgen.apps.render import check_size, resample
from my3dgen.apps.sheet import to_image
from my3dgen.apps.subject import Subject, draw, subject_of
from my3dgen.errors import UserError
from my3dgen.person import Person
from my3dgen.prior.store import Prior

Space = Literal["alpha", "w"]
STRENGTH_LIMIT = 20.0
WITHIN = 1e-3
"""Distances from the hull below this are none: they are what its search leaves."""


@dataclass(frozen=True, eq=False)
class Edited:
    """An edit at one strength."""

    strength: float
    views: tuple[Image.Image, ...]
    """One picture for each camera."""
    cameras: Float[Tensor, "views 25"]
    outside: float | None
    """How far the lowest anchor weight lies below -beta, 0 inside the dilated hull; None in W."""
    distance: float | None
    """How far the latent is from the dilated hull, in units of the anchors' spread; None without a person."""
    reach: float
    """Share of the direction's length that the space could express; 1 in W."""

    @property
    def image(self) -> Image.Image:
        """The first view."""
        return self.views[0]


@dataclass(frozen=True)
class Edit:
    """An edit ready to be drawn."""

    strengths: tuple[float, ...]
    ws: Float[Tensor, "strengths num_ws w_dim"]
    outside: tuple[float, ...] | None
    distance: tuple[float, ...] | None
    reach: float
    """Share of the direction's length that the chosen space can express; 1 in W."""


def edit(
    prior: Prior,
    person: Person | None = None,
    *,
    direction: str | Mapping[str, float | int] = "smile",
    strengths: Sequence[float | int] = (-2, -1, 0, 1, 2),
    space: Space = "w",
    beta: float | int = 0.03,
    keep_inside: bool = False,
    anchor: int | None = None,
    alpha: Mapping[int, float | int] | None = None,
    yaws: Sequence[float | int] = (0.0,),
    pitch: float | int = 0.0,
    size: int | None = None,
    resolution: int | None = None,
    seed: int = 0,
) -> Iterator[Edited]:
    """One appearance at several strengths of an edit, from every yaw, drawn as they are taken.

    `direction` is one of the prior's, or several with weights, such as {"smile": 1.5, "age": -1}: strengths
    multiply their sum. Strength 1 is one standard deviation of the attribute over the prior's faces.

    `space` is `w`, plain w + strength * d, or `alpha`, where the direction is replaced by the nearest one the
    person's anchors span, so that the edit shows the person's own way of doing it (EG3D spec 5.8). That keeps
    the likeness about twice as well for the same strength but is weaker, and does nothing for what the photos
    never show; so `w` is the default, and each result's `reach` says how much of the direction is left.
    Each result says how far outside the hull dilated by `beta` it lies; `keep_inside` moves it to the nearest
    point in there, which is the same point for either space. Angles in radians.

    Raises UserError for a direction the prior does not have or values out of range.
    """
    check_size(size)
    if not yaws:
        raise UserError("an edit needs at least one yaw to be seen from")
    subject = subject_of(prior, person, seed=seed, wanted=[anchor or 0, *(alpha or {})])
    plan = plan_edit(
        subject,
        subject.alpha(anchor, alpha),
        find(prior, direction),
        [float(strength) for strength in strengths],
        "w" if person is None else space,
        float(beta),
        keep_inside,
        hull=person is not None,
    )
    cameras = subject.camera(torch.tensor([float(yaw) for yaw in yaws]), float(pitch))
    return draw_edit(subject, plan, cameras, size, resolution)


def draw_edit(
    subject: Subject,
    plan: Edit,
    cameras: Float[Tensor, "views 25"],
    size: int | None = None,
    resolution: int | None = None,
) -> Iterator[Edited]:
    """What was planned, from every camera, drawn as it is taken."""
    for index, (strength, latent) in enumerate(zip(plan.strengths, plan.ws.split(1), strict=True)):
        rendered = draw(subject, latent, cameras, resolution)
        views = tuple(resample(to_image(one.image), size) for one in rendered)
        beyond = None if plan.outside is None else plan.outside[index]
        distance = None if plan.distance is None else plan.distance[index]
        yield Edited(strength, views, cameras.cpu(), beyond, distance, plan.reach)


def find(
    prior: Prior, direction: str | Mapping[str, float | int]
) -> Float[Tensor, " w_dim"] | Float[Tensor, "num_ws w_dim"]:
    """The prior's direction of this name, or the weighted sum of several.

    Raises UserError for a name there is none of, with those there are, and for weights out of range.
    """
    weights = {direction: 1.0} if isinstance(direction, str) else direction
    known = prior.directions or {}
    if not known:
        raise UserError(
            f"prior '{prior.name}' has no edit directions; `my3dgen prior directions {prior.name}` finds some"
        )
    if not weights:
        raise UserError("an edit needs at least one direction")
    for name, weight in weights.items():
        if name not in known:
            raise UserError(
                f"prior '{prior.name}' has no direction '{name}'; it has: {', '.join(sorted(known))}"
            )
        check_strength(weight)
    return sum((float(weight) * known[name] for name, weight in weights.items()), start=torch.zeros(()))


def check_strength(strength: float | int) -> None:
    """Raise UserError, with the range, unless a strength or weight lies in it."""
    if not abs(strength) <= STRENGTH_LIMIT:
        raise UserError(
            f"strength {strength:g} is out of range; choose {-STRENGTH_LIMIT:g} to {STRENGTH_LIMIT:g}"
        )


@torch.no_grad()
def plan_edit(
    subject: Subject,
    alpha: Float[Tensor, " anchors"],
    direction: Float[Tensor, " w_dim"] | Float[Tensor, "num_ws w_dim"],
    strengths: Sequence[float],
    space: Space,
    beta: float,
    keep_inside: bool,
    *,
    hull: bool = True,
) -> Edit:
    """The latents of an edit that starts at the appearance `alpha`.

    `hull` says whether the subject's anchors are a person's, so that their hull means something; without it
    nothing is measured or kept inside. Raises UserError as `edit`.
    """
    for strength in strengths:
        check_strength(strength)
    if not 0 <= beta <= 1:
        raise UserError(f"beta {beta:g} is out of range; choose 0 to 1")
    anchors = subject.anchors
    t = torch.tensor(list(strengths)).to(alpha)
    direction = direction.to(anchors)
    beyond, reach = None, 1.0
    if space == "w":
        ws = decode(alpha[None], anchors) + t[:, None, None] * direction
    else:
        if len(anchors) < 2:
            raise UserError("an edit in alpha-space needs at least two anchors; use --space w")
        gamma = edit_alphas(direction, anchors)
        alphas = alpha + t[:, None] * gamma
        beyond = tuple(float(x) for x in outside(alphas, beta))
        ws = decode(alphas, anchors)
        reach = float(decode(gamma[None], anchors)[0].norm() / direction.expand_as(anchors[0]).norm())
    if not hull:
        return Edit(tuple(strengths), ws, beyond, None, reach)
    nearest = decode(project(ws, anchors, beta), anchors)
    away = (ws - nearest).flatten(1).norm(dim=1) / spread(anchors).clamp_min(1e-12)
    distance = tuple(float(x) if x > WITHIN else 0.0 for x in away)
    return Edit(tuple(strengths), nearest if keep_inside else ws, beyond, distance, reach)
