"""Between a person's photos: appearance, camera, or both move from one to the next."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.alpha import decode
from my3dgen.apps.path import Ease, Way, evened, positions_at, sweep_yaws, times
from my3dgen.apps.render import check_size, resample
from my3dgen.apps.sheet import to_image
from my3dgen.apps.subject import Subject, draw, subject_of
from my3dgen.errors import UserError
from my3dgen.perceptual import load_perceptual
from my3dgen.person import Person
from my3dgen.prior.store import Prior

Stop = int | Mapping[int, float | int]
"""An anchor, or weights of several."""
Move = Literal["pose", "latent", "both"]
Pace = Literal["equal", "distance", "picture"]
"""What time is shared out by: stops, distance in latent space and turning, or what is seen to change."""
STEP_LIMIT = 3600
STOP_LIMIT = 200
PROBES = 8
"""Parts of a segment on which the change of the picture is measured."""


@dataclass(frozen=True, eq=False)
class Between:
    """One picture on the way."""

    position: float
    """0 at the first stop, 1 at the second, and so on."""
    image: Image.Image
    alpha: Float[Tensor, " anchors"]
    """Weights of the anchors it is made of."""
    camera: Float[Tensor, "25"]


def interpolate(
    prior: Prior,
    person: Person | None = None,
    *,
    anchors: Sequence[Stop],
    steps: int = 7,
    move: Move = "both",
    ease: Ease = "smooth",
    pace: Pace = "equal",
    loop: bool = False,
    sweep: float | int | None = None,
    size: int | None = None,
    resolution: int | None = None,
    seed: int = 0,
) -> Iterator[Between]:
    """`steps` evenly timed pictures on the way through `anchors`, drawn as they are taken.

    Latents move on straight lines between the stops (EG3D spec 5.8), cameras on the sphere between those of
    the photos; a mixture's camera is that of its heaviest anchor. With `sweep` (radians) the camera swings
    that far to either side instead. Moving the `pose` keeps the appearance of the first stop, moving the
    `latent` looks from the front. `ease` says where the motion rests. `pace` shares the time out among the
    segments: equally, by their `distance`, or so that the `picture` changes evenly, also within segments.
    An open way shows both its ends; a closed one (`loop`) goes on to the first stop and ends one picture
    before it. Without a person, anchor i is the prior's face of seed `seed` + i.

    Raises UserError for an anchor that is not there or values out of range, before the first picture.
    """
    check_size(size)
    if not 2 <= len(anchors) <= STOP_LIMIT:
        raise UserError(f"a way through {len(anchors)} anchors is none; choose 2 to {STOP_LIMIT}")
    if not 2 <= steps <= STEP_LIMIT:
        raise UserError(f"{steps} steps is out of range; choose 2 to {STEP_LIMIT}")
    if sweep is not None and not abs(sweep) <= math.pi:
        raise UserError(f"a sweep of {math.degrees(sweep):g} degrees is out of range; choose up to 180")
    if person is None and move == "pose" and sweep is None:
        raise UserError("faces of a prior have no photos' cameras to move between; give a sweep")
    subject = subject_of(
        prior, person, seed=seed, wanted=[anchor for stop in anchors for anchor in parts(stop)]
    )
    way = way_through(subject, anchors, move, loop)
    moments = times(steps, loop)
    if pace == "equal":
        positions = positions_at(moments, [1.0] * way.segments, ease)
    elif pace == "distance":
        positions = positions_at(moments, way.lengths(subject.anchors), ease)
    else:
        changes = picture_changes(subject, way)
        lengths = [sum(change) for change in changes]
        positions = positions_at(moments, lengths if sum(lengths) > 0 else [1.0] * way.segments, ease)
        positions = evened(positions, changes)
    alphas, cameras = way.at(positions)
    if sweep is not None and move != "latent":
        cameras = subject.camera(torch.tensor(sweep_yaws(moments, float(sweep), loop)))

    def pictures() -> Iterator[Between]:
        rendered = draw_each(subject, alphas, cameras, resolution)
        for position, alpha, camera, image in zip(positions, alphas, cameras, rendered, strict=True):
            yield Between(position, resample(to_image(image), size), alpha.cpu(), camera.cpu())

    return pictures()


def parts(stop: Stop) -> Sequence[int]:
    """The anchors a stop is made of, the heaviest first."""
    if isinstance(stop, int):
        return [stop]
    return sorted(stop, key=lambda anchor: -abs(stop[anchor]))


def way_through(subject: Subject, stops: Sequence[Stop], move: Move, loop: bool) -> Way:
    """The stops' mixtures and cameras; what does not move is held. Raises UserError as `Subject.alpha`."""
    mixtures = [subject.alpha(stop) if isinstance(stop, int) else subject.alpha(None, stop) for stop in stops]
    alphas = torch.stack(mixtures)
    if move == "pose":
        alphas = alphas[:1].expand_as(alphas)
    cameras = subject.cameras[[parts(stop)[0] for stop in stops]]
    if move == "latent":
        cameras = subject.camera().expand_as(cameras)
    way = Way(alphas, cameras)
    return way.closed() if loop else way


def draw_each(
    subject: Subject,
    alphas: Float[Tensor, "steps anchors"],
    cameras: Float[Tensor, "steps 25"],
    resolution: int | None = None,
) -> Iterator[Float[Tensor, "1 3 height width"]]:
    """Each mixture from its camera; where the mixture stays the same, its planes are computed once."""
    start = 0
    while start < len(alphas):
        end = start + 1
        while end < len(alphas) and torch.equal(alphas[end], alphas[start]):
            end += 1
        ws = decode(alphas[start : start + 1], subject.anchors)
        for one in draw(subject, ws, cameras[start:end], resolution):
            yield one.image
        start = end


@torch.no_grad()
def picture_changes(subject: Subject, way: Way) -> list[list[float]]:
    """How much the picture changes on equal parts of every segment, by the features of "squeeze-feat"."""
    perceptual = load_perceptual("squeeze-feat", subject.anchors.device)
    points = [part / PROBES for part in range(way.segments * PROBES + 1)]
    seen = [perceptual.features(image.clamp(-1, 1)) for image in draw_each(subject, *way.at(points))]
    # distances are squared: their roots add up along a straight line
    pairs = itertools.pairwise(seen)
    changes = [float(perceptual.distance(a, b).clamp_min(0).sqrt()) for a, b in pairs]
    return [changes[k * PROBES : (k + 1) * PROBES] for k in range(way.segments)]
