"""Between two of a person's photos: appearance, camera, or both move from one to the other."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.alpha import decode
from my3dgen.apps.render import check_size, resample
from my3dgen.apps.sheet import to_image
from my3dgen.apps.subject import draw, subject_of
from my3dgen.cameras import join_label, split_label
from my3dgen.errors import UserError
from my3dgen.person import Person
from my3dgen.prior.store import Prior

Mode = Literal["pose", "appearance", "both"]
STEP_LIMIT = 3600


@dataclass(frozen=True)
class Between:
    """One picture on the way."""

    position: float
    """0 at the first photo, 1 at the second."""
    image: Image.Image


def interpolate(
    prior: Prior,
    person: Person | None = None,
    *,
    start: int,
    end: int,
    steps: int = 7,
    mode: Mode = "both",
    size: int | None = None,
    resolution: int | None = None,
    seed: int = 0,
) -> Iterator[Between]:
    """Pictures on the way from anchor `start` to anchor `end`, both included, drawn as they are taken.

    Latents move on the straight line between the anchors (EG3D spec 5.8), cameras on the sphere between
    those of the two photos; speed eases in and out. `pose` keeps the appearance of `start`,
    `appearance` looks from the front. Without a person, anchor i is the prior's face of seed `seed` + i.

    Raises UserError for an anchor that is not there or values out of range, before the first picture.
    """
    check_size(size)
    if not 2 <= steps <= STEP_LIMIT:
        raise UserError(f"{steps} steps is out of range; choose 2 to {STEP_LIMIT}")
    subject = subject_of(prior, person, seed=seed, wanted=[start, end])
    first, last = subject.alpha(start), subject.alpha(end)
    positions = eased(steps)
    t = torch.tensor(positions).to(first)[:, None]
    ws = decode(first + (t if mode != "pose" else 0 * t) * (last - first), subject.anchors)
    cameras = subject.camera(torch.zeros(steps))
    if mode != "appearance":
        cameras = between_cameras(subject.cameras[start], subject.cameras[end], positions)

    def pictures() -> Iterator[Between]:
        for position, latent, camera in zip(positions, ws.split(1), cameras.split(1), strict=True):
            (one,) = draw(subject, latent, camera, resolution)
            yield Between(position, resample(to_image(one.image), size))

    return pictures()


def eased(steps: int) -> list[float]:
    """Positions from 0 to 1 whose speed rises from rest and falls to rest like a cosine."""
    return [(1 - math.cos(math.pi * step / (steps - 1))) / 2 for step in range(steps)]


def between_cameras(
    first: Float[Tensor, "25"], last: Float[Tensor, "25"], positions: list[float]
) -> Float[Tensor, "steps 25"]:
    """Cameras on the way: rotation and direction turn, distance and intrinsics change linearly."""
    from scipy.spatial.transform import Rotation, Slerp

    (pose_a, lens_a), (pose_b, lens_b) = (split_label(c[None].double().cpu()) for c in (first, last))
    turns = Slerp([0, 1], Rotation.from_matrix(torch.cat([pose_a, pose_b])[:, :3, :3].numpy()))(positions)
    from_, to = pose_a[0, :3, 3].numpy(), pose_b[0, :3, 3].numpy()
    arc = Rotation.align_vectors(to[None], from_[None])[0].as_rotvec()  # the shortest turn
    near, far = np.linalg.norm(from_), np.linalg.norm(to)
    poses, lenses = torch.eye(4).repeat(len(positions), 1, 1), []
    for index, t in enumerate(positions):
        direction = Rotation.from_rotvec(arc * t).apply(from_ / near)
        poses[index, :3, :3] = torch.from_numpy(turns[index].as_matrix())
        poses[index, :3, 3] = torch.from_numpy(direction * ((1 - t) * near + t * far))
        lenses.append((1 - t) * lens_a + t * lens_b)
    return join_label(poses, torch.cat(lenses).float()).to(first)
