"""Cameras as EG3D labels: 25 numbers, cam2world (4x4, row-major) then intrinsics (3x3, row-major).

Axes: a camera looks along its +z with x right and y down (OpenCV); the world has y up and the
face looks toward +z, so the frontal camera stands at (0, 0, radius). Intrinsics are divided by the
image size. Angles are radians: yaw > 0 moves the camera to +x, pitch > 0 moves it up.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from my3dgen.errors import FileFormatError

RADIUS = 2.7
"""Distance of EG3D's face cameras from the world's origin."""
PIVOT = (0.0, 0.0, 0.2)
"""The point EG3D's face cameras look at."""
FOCAL = 4.2647
"""Focal length of EG3D's face cameras in image widths."""
MAX_NUMBER = 1000
"""Bound on the numbers of a camera label."""


def camera_from_angles(
    yaw: Tensor | float,
    pitch: Tensor | float,
    *,
    radius: float = RADIUS,
    pivot: Sequence[float] = PIVOT,
    focal: float = FOCAL,
) -> Float[Tensor, "batch 25"]:
    """Cameras on the sphere of `radius` around the origin that look at `pivot`.

    `yaw` and `pitch` are the true longitude and latitude of the camera in radians; they broadcast
    against each other, and two plain numbers make a batch of one.
    """
    yaw, pitch = _angles(yaw, pitch)
    position = radius * torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], dim=-1)
    return _label(_look_at(position, pivot), focal)


def frontal_camera(
    *, radius: float = RADIUS, pivot: Sequence[float] = PIVOT, focal: float = FOCAL
) -> Float[Tensor, "1 25"]:
    """The camera straight in front of the face."""
    return camera_from_angles(0.0, 0.0, radius=radius, pivot=pivot, focal=focal)


def eg3d_look_at(
    h: Tensor | float,
    v: Tensor | float,
    pivot: Sequence[float] = PIVOT,
    radius: float = RADIUS,
    focal: float = FOCAL,
) -> Float[Tensor, "batch 25"]:
    """EG3D's own sampler (EG3D spec 3.2): h = v = pi/2 is frontal.

    `v` is not the polar angle: it parametrises the sphere by area, so an offset of -0.2 rad
    raises the camera by 0.1277 rad. Use `camera_from_angles` for true angles.
    """
    h, v = _angles(h, v)
    phi = torch.arccos(1 - 2 * v.clamp(1e-5, math.pi - 1e-5) / math.pi)
    position = radius * torch.stack(
        [phi.sin() * torch.cos(math.pi - h), phi.cos(), phi.sin() * torch.sin(math.pi - h)], dim=-1
    )
    return _label(_look_at(position, pivot), focal)


def fov_to_intrinsics(degrees: float) -> Float[Tensor, "9"]:
    """Intrinsics, row-major, for a *diagonal* field of view in degrees (EG3D spec 3.2)."""
    # 3.14159 and 1.414 are the constants of the field's convention, not pi and sqrt(2)
    focal = 1 / (math.tan(degrees * 3.14159 / 360) * 1.414)
    return _intrinsics(focal)


def mirror_camera(cameras: Float[Tensor, "batch 25"]) -> Float[Tensor, "batch 25"]:
    """The cameras of the left-right mirrored images (EG3D spec 3.3): reflection across x = 0.

    Exact for intrinsics without skew and with the principal point in the middle.
    """
    mirrored = cameras.clone()
    for entry in (1, 2, 3, 4, 8):  # cam2world (0,1), (0,2), (0,3), (1,0), (2,0)
        mirrored[:, entry] = -cameras[:, entry]
    return mirrored


def angles_from_camera(
    cameras: Float[Tensor, "batch 25"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """(yaw, pitch) of the cameras' positions in radians; the inverse of `camera_from_angles`."""
    x, y, z = cameras[:, 3], cameras[:, 7], cameras[:, 11]
    return torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))


def frame(cameras: Float[Tensor, "batch 25"], framing: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 25"]:
    """Cameras whose pictures are those of `cameras` turned, enlarged and moved.

    `framing` holds roll (radians, clockwise in the picture, about its principal point), zoom (log), and the
    shift right and down in image widths, in this order of application.
    """
    cam2world, intrinsics = split_label(cameras)
    roll, zoom, right, down = framing.unbind(1)
    cos, sin, zero = roll.cos(), roll.sin(), torch.zeros_like(roll)
    back = torch.stack([cos, sin, zero, -sin, cos, zero, zero, zero, zero + 1], 1).view(-1, 3, 3)
    axes = cam2world[:, :3, :3] @ back
    moved = torch.cat([torch.cat([axes, cam2world[:, :3, 3:]], 2), cam2world[:, 3:]], 1)
    focal = intrinsics[:, :2, :2] * zoom.exp()[:, None, None]
    centre = intrinsics[:, :2, 2] + torch.stack([right, down], 1)
    rows = torch.cat([torch.cat([focal, centre[:, :, None]], 2), intrinsics[:, 2:]], 1)
    return join_label(moved, rows)


def project(
    points: Float[Tensor, "batch points 3"], cameras: Float[Tensor, "batch 25"]
) -> Float[Tensor, "batch points 2"]:
    """Image coordinates (right, down) of world points; [0, 1] spans the image.

    A point behind its camera gets the coordinates of its reflection; nothing marks it.
    """
    cam2world, intrinsics = split_label(cameras)
    local = (points - cam2world[:, None, :3, 3]) @ cam2world[:, :3, :3]
    image = (local / local[..., 2:]) @ intrinsics.transpose(1, 2)
    return image[..., :2]


def split_label(
    cameras: Float[Tensor, "batch 25"],
) -> tuple[Float[Tensor, "batch 4 4"], Float[Tensor, "batch 3 3"]]:
    """(cam2world, intrinsics) of camera labels."""
    return cameras[:, :16].reshape(-1, 4, 4), cameras[:, 16:].reshape(-1, 3, 3)


def join_label(
    cam2world: Float[Tensor, "batch 4 4"], intrinsics: Float[Tensor, "batch 3 3"]
) -> Float[Tensor, "batch 25"]:
    """Camera labels from their two matrices; the inverse of `split_label`."""
    return torch.cat([cam2world.reshape(-1, 16), intrinsics.reshape(-1, 9)], dim=1)


def orbit(
    frames: int,
    *,
    yaw: float = 0.35,
    pitch: float = 0.25,
    centre: tuple[float, float] = (0.0, 0.0),
    radius: float = RADIUS,
    pivot: Sequence[float] = PIVOT,
    focal: float = FOCAL,
) -> Float[Tensor, "frames 25"]:
    """A closed loop around the face: an ellipse of half-widths `yaw` and `pitch` (radians).

    `centre` is the (yaw, pitch) of its middle. The frame after the last would be the first.
    """
    turn = torch.arange(frames, dtype=torch.float32) * (2 * math.pi / frames)
    return camera_from_angles(
        centre[0] + yaw * turn.sin(), centre[1] + pitch * turn.cos(), radius=radius, pivot=pivot, focal=focal
    )


def eg3d_orbit(
    frames: int, pivot: Sequence[float] = PIVOT, radius: float = RADIUS
) -> Float[Tensor, "frames 25"]:
    """The trajectory of the field's demonstration videos (EG3D spec 3.2)."""
    turn = torch.arange(frames, dtype=torch.float32) * (2 * 3.14 / frames)
    return eg3d_look_at(3.14 / 2 + 0.35 * turn.sin(), 3.14 / 2 - 0.05 + 0.25 * turn.cos(), pivot, radius)


def check_label(label: object, name: str) -> None:
    """Raise FileFormatError, naming the image `name`, unless `label` is a possible camera."""
    if problem := label_problem(label):
        raise FileFormatError(f"{name}: the camera label {problem}; correct it in dataset.json")


def label_problem(label: object) -> str | None:
    """Why `label` is no possible camera, as a verb and its object; None if it is one.

    Its numbers must lie within +-1000: the head is about 1 across, and so is the image.
    """
    if isinstance(label, str | bytes) or not isinstance(label, Sequence) or len(label) != 25:
        return "is not a list of 25 numbers"
    # compared, not converted: a whole number of JSON may be too large for a float
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < math.inf for x in label):
        return "holds something that is not a finite number"
    if any(abs(x) > MAX_NUMBER for x in label):
        return f"holds a number beyond {MAX_NUMBER}"
    cam2world, intrinsics = split_label(torch.tensor([list(label)], dtype=torch.float64))
    rotation, bottom = cam2world[0, :3, :3], cam2world[0, 3]
    if not torch.allclose(bottom, torch.tensor([0.0, 0, 0, 1], dtype=torch.float64), atol=1e-4):
        return "has a cam2world whose last row is not 0 0 0 1"
    if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-3):
        return "has a rotation that is not orthonormal"
    if torch.linalg.det(rotation) < 0:
        return "has a rotation that mirrors"
    if cam2world[0, :3, 3].norm() < 1e-3:
        return "puts the camera at the world's origin"
    if intrinsics[0, 0, 0] <= 0 or intrinsics[0, 1, 1] <= 0:
        return "has a focal length that is not positive"
    if not torch.allclose(intrinsics[0, 2], torch.tensor([0.0, 0, 1], dtype=torch.float64), atol=1e-4):
        return "has intrinsics whose last row is not 0 0 1"
    return None


def _angles(first: Tensor | float, second: Tensor | float) -> tuple[Tensor, Tensor]:
    device = next((x.device for x in (first, second) if isinstance(x, Tensor)), None)
    pair = [torch.as_tensor(x, dtype=torch.float32, device=device) for x in (first, second)]
    one, two = torch.broadcast_tensors(*pair)
    return one.reshape(-1), two.reshape(-1)


def _look_at(position: Float[Tensor, "batch 3"], pivot: Sequence[float]) -> Float[Tensor, "batch 4 4"]:
    forward = normalize(position.new_tensor(pivot) - position, dim=-1)
    up = position.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = -normalize(torch.linalg.cross(up, forward), dim=-1)
    down = normalize(torch.linalg.cross(forward, right), dim=-1)
    cam2world = torch.eye(4, device=position.device).repeat(len(position), 1, 1)
    cam2world[:, :3, :] = torch.stack([right, down, forward, position], dim=-1)
    return cam2world


def _intrinsics(focal: float) -> Float[Tensor, "9"]:
    return torch.tensor([focal, 0.0, 0.5, 0.0, focal, 0.5, 0.0, 0.0, 1.0])


def _label(cam2world: Float[Tensor, "batch 4 4"], focal: float) -> Float[Tensor, "batch 25"]:
    intrinsics = _intrinsics(focal).to(cam2world).expand(len(cam2world), 9)
    return torch.cat([cam2world.reshape(-1, 16), intrinsics], dim=1)
