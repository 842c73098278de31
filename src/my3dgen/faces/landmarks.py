"""478 points on a face, differentiable from pixels.

A region is a square turned to the face: centre x, centre y, side (pixels) and angle (radians). It
comes from a detection, from earlier landmarks, or from an EG3D camera, which knows where the face
is. Pixels run from 0 at the left or top edge to the width or height.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.cameras import project
from my3dgen.faces.blendshapes import blendshapes
from my3dgen.faces.canonical import canonical_face
from my3dgen.faces.detect import Face
from my3dgen.faces.graph import Graph

SIDE = 256  # what the network sees
MARGIN = 1.5  # side of the region over side of the face's box
FIVE = (468, 473, 1, 61, 291)
"""Left and right iris, nose tip, left and right corner of the mouth (left and right in the picture)."""
EYES = (33, 263)  # outer corners, left in the picture first


@functools.cache
def load_landmarker(device: str = "cpu") -> Graph:
    """The shipped landmark network, frozen."""
    return Graph("face-landmarks").eval().to(device)


def region_of_face(face: Face) -> Float[Tensor, "1 4"]:
    """The region around a detected face."""
    across = face.keypoints[1] - face.keypoints[0]
    angle = torch.atan2(across[1], across[0])
    centre = (face.box[:2] + face.box[2:]) / 2
    return torch.stack([centre[0], centre[1], torch.tensor(face.size * MARGIN), angle])[None]


def region_of_landmarks(points: Float[Tensor, "batch points coordinates"]) -> Float[Tensor, "batch 4"]:
    """The region around known landmarks: at least the first 468, in pixels."""
    xy = points[:, :468, :2]
    across = xy[:, EYES[1]] - xy[:, EYES[0]]
    angle = torch.atan2(across[:, 1], across[:, 0])
    turn = _rotation(-angle)
    upright = xy @ turn.transpose(1, 2)
    low, high = upright.amin(1), upright.amax(1)
    centre = ((low + high) / 2)[:, None] @ turn
    side = (high - low).amax(1) * MARGIN
    return torch.cat([centre[:, 0], side[:, None], angle[:, None]], 1)


def region_of_camera(cameras: Float[Tensor, "batch 25"], resolution: int) -> Float[Tensor, "batch 4"]:
    """The region where a face in EG3D's world appears in square pictures."""
    points = project(canonical_face().to(cameras).expand(len(cameras), -1, -1), cameras)
    return region_of_landmarks(points * resolution)


def landmarks(
    images: Float[Tensor, "batch 3 height width"], regions: Float[Tensor, "batch 4"]
) -> tuple[Float[Tensor, "batch 478 3"], Float[Tensor, " batch"]]:
    """(points, presence): x and y in pixels, z in pixels with smaller nearer; presence in [0, 1].

    Images are in [-1, 1]. Differentiable in the images.
    """
    regions = regions.to(images)
    # shrink by a whole factor first where a pixel of the crop covers several of the picture
    factor = max(1, int(regions[:, 2].min() / SIDE))
    small = F.avg_pool2d(images, factor, ceil_mode=True) if factor > 1 else images
    turn = _rotation(regions[:, 3]) * regions[:, 2, None, None] / 2
    shrunk = images.new_tensor([small.shape[3], small.shape[2]]) * factor
    linear = turn * (2 / shrunk[:, None])
    shift = regions[:, :2] / shrunk * 2 - 1
    grid = F.affine_grid(
        torch.cat([linear, shift[:, :, None]], 2), [len(images), 3, SIDE, SIDE], align_corners=False
    )
    crops = F.grid_sample(small, grid, padding_mode="border", align_corners=False)
    raw, presence, _ = load_landmarker(str(images.device))((crops + 1) / 2)
    raw = raw.reshape(-1, 478, 3) / SIDE * 2
    xy = (raw[..., :2] - 1) @ turn.transpose(1, 2) + regions[:, None, :2]
    z = raw[..., 2:] * regions[:, 2, None, None] / 2
    return torch.cat([xy, z], 2), torch.sigmoid(presence.reshape(-1))


def landmarks_of_face(image: Float[Tensor, "3 height width"], face: Face) -> tuple[Tensor, float]:
    """(points "478 3", presence) of one detected face, found twice: the second region is tighter."""
    points, _ = landmarks(image[None], region_of_face(face))
    points, presence = landmarks(image[None], region_of_landmarks(points))
    return points[0], float(presence[0])


def expressions(
    images: Float[Tensor, "batch 3 size size"], cameras: Float[Tensor, "batch 25"]
) -> Float[Tensor, "batch 52"]:
    """Blendshape scores of pictures of an EG3D world; differentiable in the images.

    No detector runs: the cameras say where the face is (see `my3dgen.faces.blendshapes.score`).
    """
    points, _ = landmarks(images, region_of_camera(cameras, images.shape[-1]))
    return blendshapes(points)


def _rotation(angle: Float[Tensor, " batch"]) -> Float[Tensor, "batch 2 2"]:
    """Matrices for column vectors, turning x towards y (clockwise in a picture)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
