"""The canonical face: 468 vertices that landmarks correspond to, placed in EG3D's world.

The mesh comes with Google's Face Landmarker, in centimetres with x to the viewer's right, y up and
z to the viewer, which are EG3D's axes too. `SCALE` and `OFFSET` carry it into the world in which
EG3D's cameras stand; they are fitted to faces cropped by the rule of EG3D spec 3.4.
"""

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from my3dgen.weights.networks import load_tensors

SCALE = 0.0235
"""World units per centimetre."""
OFFSET = (0.002, 0.012, 0.126)
"""Where the mesh's origin lies in the world."""


@functools.cache
def _tensors() -> dict[str, Tensor]:
    return load_tensors("canonical-face")[0]


def canonical_face() -> Float[Tensor, "468 3"]:
    """Vertices of the neutral, frontal face in EG3D's world; vertex i is landmark i."""
    return _tensors()["vertices"] * SCALE + torch.tensor(OFFSET)


def triangles() -> Int[Tensor, "898 3"]:
    """The mesh's triangles."""
    return _tensors()["triangles"].long()


def pose_landmarks() -> tuple[Int[Tensor, "33"], Float[Tensor, "33"]]:
    """Landmarks that move least with expression, and how much each counts for the pose."""
    return _tensors()["pose_landmarks"].long(), _tensors()["pose_weights"]
