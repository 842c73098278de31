"""A person as a turning picture: a smooth closed path of cameras around one appearance."""

import math
from collections.abc import Iterator, Mapping

import torch
from PIL import Image

from my3dgen.apps.render import check_size, resample
from my3dgen.apps.sheet import to_image
from my3dgen.apps.subject import draw, subject_of
from my3dgen.errors import UserError
from my3dgen.person import Person
from my3dgen.prior.store import Prior

FRAME_LIMIT = 3600


def orbit(
    prior: Prior,
    person: Person | None = None,
    *,
    frames: int = 90,
    yaw_range: float | int = 0.45,
    pitch_range: float | int = 0.15,
    fov: float | int | None = None,
    size: int | None = None,
    resolution: int | None = None,
    anchor: int | None = None,
    alpha: Mapping[int, float | int] | None = None,
    seed: int = 0,
) -> Iterator[Image.Image]:
    """Frames of a closed loop, drawn as they are taken; the planes are computed once for all.

    Yaw swings by `yaw_range` and pitch by `pitch_range` to either side (radians), a quarter apart, so
    the path is an ellipse and the frame after the last is the first. A `yaw_range` of pi or more walks
    once all the way around instead. Other arguments are those of `render`.

    Raises UserError for values out of range, before the first frame.
    """
    if not 2 <= frames <= FRAME_LIMIT:
        raise UserError(f"{frames} frames is out of range; choose 2 to {FRAME_LIMIT}")
    check_size(size)
    yaw, pitch = path(frames, float(yaw_range), float(pitch_range))
    subject = subject_of(prior, person, seed=seed, wanted=[anchor or 0, *(alpha or {})])
    ws, cameras = subject.latent(anchor, alpha), subject.camera(yaw, pitch, fov)
    return (resample(to_image(one.image), size) for one in draw(subject, ws, cameras, resolution))


def path(frames: int, yaw_range: float, pitch_range: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(yaw, pitch) of every frame in radians: EG3D's ellipse (EG3D spec 3.2), or the full turn."""
    turn = torch.arange(frames, dtype=torch.float32) * (2 * math.pi / frames)
    yaw = turn if yaw_range >= math.pi else yaw_range * turn.sin()
    return yaw, pitch_range * turn.cos()
