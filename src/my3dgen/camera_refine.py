"""Small corrections of estimated cameras, as numbers an optimiser can move."""

import torch
from jaxtyping import Float
from torch import Tensor

TURN = 0.05  # radians: a usual error of a pose estimated from landmarks
SHIFT = 0.02  # world units (the head is about 0.5 high)
ZOOM = 0.0075  # of the focal length: as much of the picture as a shift of the head's edge


def move_cameras(
    cameras: Float[Tensor, "batch 25"], moves: Float[Tensor, "batch 6"]
) -> Float[Tensor, "batch 25"]:
    """Cameras turned about the world's origin, which lies in the head, then shifted across their view, and
    zoomed.

    `moves` holds pitch, yaw and roll in units of `TURN` (a rotation vector in world axes), right and down in
    units of `SHIFT`, and the logarithm of the focal length in units of `ZOOM`; zeros leave the camera as it
    is. Units of a usual error make one step size right for all six.

    The distance stays. In a picture it looks like the focal length, but a camera that goes nearer takes the
    head out of the axis it turns about, which cost a third to half a decibel from other sides.
    """
    turn = rotations(moves[:, :3] * TURN)
    pose = cameras[:, :16].reshape(-1, 4, 4)
    axes = turn @ pose[:, :3, :3]
    place = turn @ pose[:, :3, 3:] + axes[:, :, :2] @ (moves[:, 3:5, None] * SHIFT)
    moved = torch.cat([torch.cat([axes, place], 2), pose[:, 3:]], 1)
    lens, zoom = cameras[:, 16:].reshape(-1, 3, 3), (moves[:, 5:, None] * ZOOM).exp()
    zoomed = torch.cat([torch.cat([lens[:, :2, :2] * zoom, lens[:, :2, 2:]], 2), lens[:, 2:]], 1)
    return torch.cat([moved.flatten(1), zoomed.flatten(1)], 1)


def rotations(vectors: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 3"]:
    """Rotation matrices about axes by as many radians as the vectors are long (Rodrigues' formula).

    Unlike `torch.linalg.matrix_exp` it waits for no device. Exactly the identity at zero, with a gradient.
    """
    x, y, z = vectors.unbind(1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], 1).reshape(-1, 3, 3)
    squared = vectors.square().sum(1)[:, None, None]
    small = squared < 1e-4  # where the quotients are their series to all digits
    angle = torch.where(small, 1.0, squared).sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / angle.square())
    return torch.eye(3, device=vectors.device) + sine * cross + cosine * (cross @ cross)


def crop_cameras(
    cameras: Float[Tensor, "batch 25"], top: int, left: int, size: int, resolution: int
) -> Float[Tensor, "batch 25"]:
    """Cameras that see a `size`-square window of their `resolution`-square picture.

    A crop is a change of the normalised intrinsics, and its rays are exactly those of the window.
    """
    scale = resolution / size
    intrinsics = cameras[:, 16:].reshape(-1, 3, 3)
    # numbers, not a tensor of them, which would have to be copied to a GPU in every step
    corner = (left / resolution, top / resolution)
    centre = torch.stack([(intrinsics[:, i, 2] - corner[i]) * scale for i in (0, 1)], 1)
    rows = torch.cat([intrinsics[:, :2, :2] * scale, centre[:, :, None]], 2)
    return torch.cat([cameras[:, :16], torch.cat([rows, intrinsics[:, 2:]], 1).flatten(1)], 1)
