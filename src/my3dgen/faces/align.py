"""Which square of a photo becomes the album picture (EG3D spec 3.4, steps 2 to 6).

Five points (eyes, nose, corners of the mouth) are matched with a standard face by least squares; the
standard face's origin becomes the middle of the crop and its size sets the crop's size. One
resampling takes the square out of the photo, where the reference resizes twice.

Unlike the reference, the square may be turned: a photo's roll is taken out before the crop. Crops for
training EG3D's priors were levelled, and level photos invert better; EG3D's own crop for other photos
leaves the head tilted. `my3dgen.faces.pose` says which angle makes a camera level.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

STANDARD = (  # x right, y up, z to the viewer; from EG3D spec 3.4
    (-0.31148657, 0.29036078, 0.13377953),
    (0.30979887, 0.28972036, 0.13179526),
    (0.0032535, -0.04617932, 0.55244243),
    (-0.25216928, -0.38133916, 0.22405732),
    (0.2484662, -0.38128236, 0.22235769),
)
"""The standard face: left and right eye, nose tip, left and right corner of the mouth in the picture."""
SIDES = 700 / 300
"""Side of the crop in units of the standard face: 300 pixels per unit, of which 700 pixels are kept."""


@dataclass(frozen=True)
class Square:
    """A square in a photo; pixels run from 0 at the left or top edge to the width or height."""

    x: float
    y: float
    side: float
    angle: float = 0.0
    """Radians; the square's upper edge runs in the direction (cos, sin), y down."""

    @property
    def axes(self) -> Float[np.ndarray, "2 2"]:
        """Columns: the square's right and down in the photo, each one side long."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return self.side * np.array([[cos, -sin], [sin, cos]])

    def scaled(self, factor: float) -> "Square":
        """The same square in a photo `factor` times as large."""
        return replace(self, x=self.x * factor, y=self.y * factor, side=self.side * factor)


def face_square(points: Float[Tensor, "5 2"], angle: float = 0.0) -> Square:
    """The crop for five points in pixels (left and right eye, nose, left and right mouth corner)."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])  # photo to level
    level = points.double().numpy() @ turn.T * [1, -1]  # y up, as the standard face
    basis = np.hstack([np.array(STANDARD), np.ones((5, 1))])
    fit = np.linalg.lstsq(basis, level, rcond=None)[0]  # rows: three axes, then the origin
    unit = np.linalg.norm(fit[:3], axis=0).mean()
    x, y = turn.T @ (fit[3] * [1, -1])
    return Square(float(x), float(y), float(SIDES * unit), angle)


def into_square(points: Float[Tensor, "points 2"], square: Square) -> Float[Tensor, "points 2"]:
    """Photo pixels to coordinates in the crop, where [0, 1] spans it."""
    inverse = torch.from_numpy(np.linalg.inv(square.axes)).to(points)
    return (points - points.new_tensor([square.x, square.y])) @ inverse.T + 0.5


def outside(photo_size: tuple[int, int], square: Square, grid: int = 64) -> float:
    """The share of the square that lies outside a photo of (width, height)."""
    steps = (np.arange(grid) + 0.5) / grid - 0.5
    u, v = np.meshgrid(steps, steps)
    x, y = square.axes @ np.stack([u.ravel(), v.ravel()]) + np.array([[square.x], [square.y]])
    inside = (x >= 0) & (x < photo_size[0]) & (y >= 0) & (y < photo_size[1])
    return float(1 - inside.mean())


def cut(photo: Image.Image, square: Square, resolution: int) -> tuple[Image.Image, Image.Image]:
    """(crop, inside): the square at `resolution`, and 255 where it shows the photo.

    What lies outside the photo is filled with the photo's mirror image, which misleads a segmenter
    less than a black border and leaves no hard edge.
    """
    factor = max(1, int(square.side / resolution))
    reach = square.side * (abs(math.cos(square.angle)) + abs(math.sin(square.angle))) / 2 + 4 * factor
    left, top = math.floor(square.x - reach), math.floor(square.y - reach)
    right, bottom = math.ceil(square.x + reach), math.ceil(square.y + reach)
    part = photo.crop((max(left, 0), max(top, 0), min(right, photo.width), min(bottom, photo.height)))
    padding = (
        (max(-top, 0), max(bottom - photo.height, 0)),
        (max(-left, 0), max(right - photo.width, 0)),
    )
    pixels = np.pad(np.asarray(part), (*padding, (0, 0)), mode="symmetric")
    valid = np.pad(np.full(part.size[::-1], 255, np.uint8), padding)
    moved = replace(square, x=square.x - left, y=square.y - top)
    return _sample(Image.fromarray(pixels), moved, resolution, factor), _sample(
        Image.fromarray(valid), moved, resolution, factor
    )


def _sample(image: Image.Image, square: Square, resolution: int, factor: int) -> Image.Image:
    """Resample a square, after a box filter by the whole factor so that nothing aliases."""
    if factor > 1:
        image = image.reduce(factor)
    axes = square.axes / factor / resolution
    corner = np.array([square.x, square.y]) / factor - axes @ [resolution / 2, resolution / 2]
    matrix = (axes[0, 0], axes[0, 1], corner[0], axes[1, 0], axes[1, 1], corner[1])
    return image.transform((resolution, resolution), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
