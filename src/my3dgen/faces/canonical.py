"""The canonical face: 468 vertices that landmarks correspond to, placed in a prior's world.

The mesh comes with Google's Face Landmarker, in centimetres with x to the viewer's right, y up and
z to the viewer, which are the axes of EG3D's world too. Where "straight ahead" is for a head is a
convention of the data a prior was trained on, hence two placements:

- `mini`: priors trained on our synthetic heads; fitted to 96 renders of 24 heads, whose mean face
  looks 6.4 degrees further down than the mesh.
- `ffhq`: priors trained on FFHQ with EG3D's labels; from a fit to labelled photos (EG3D spec 3.4).
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from my3dgen.weights.networks import load_tensors

World = Literal["mini", "ffhq"]


@dataclass(frozen=True)
class Placement:
    """How the mesh is carried into a world."""

    scale: float
    """World units per centimetre."""
    tilt: float
    """Degrees by which the forehead leans forward about the mesh's x axis."""
    offset: tuple[float, float, float]
    """Where the mesh's origin lies."""


PLACEMENTS: dict[World, Placement] = {
    "mini": Placement(scale=0.0246, tilt=6.4, offset=(0.0, 0.0086, 0.1163)),
    "ffhq": Placement(scale=0.0235, tilt=0.0, offset=(0.002, 0.012, 0.126)),
}


@functools.cache
def _tensors() -> dict[str, Tensor]:
    return load_tensors("canonical-face")[0]


def canonical_face(world: World = "mini") -> Float[Tensor, "468 3"]:
    """Vertices of the neutral, frontal face in the world of a prior; vertex i is landmark i."""
    place = PLACEMENTS[world]
    cos, sin = math.cos(math.radians(place.tilt)), math.sin(math.radians(place.tilt))
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    return _tensors()["vertices"] @ turn.T * place.scale + torch.tensor(place.offset)


def triangles() -> Int[Tensor, "898 3"]:
    """The mesh's triangles."""
    return _tensors()["triangles"].long()


def pose_landmarks() -> tuple[Int[Tensor, "33"], Float[Tensor, "33"]]:
    """Landmarks that move least with expression, and how much each counts for the pose."""
    return _tensors()["pose_landmarks"].long(), _tensors()["pose_weights"]
