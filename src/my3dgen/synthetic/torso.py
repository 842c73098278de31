"""The torso turns below a head that stays where it is; the neck twists smoothly in between."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.synthetic.factors import block
from my3dgen.synthetic.noise import smoothstep

NECK = (0.0, 0.30)
"""Canonical x and z of the vertical axis through the neck, decimetres."""


def torso_yaw(factors: Float[Tensor, "scene factors"]) -> Float[Tensor, " scene"]:
    """How far the torso is turned to +x from below the head, radians: about N(0, 12 degrees), under 36."""
    z = block(factors, "expression")["torso_yaw"]
    return math.radians(12) * 3 * torch.tanh(z / 3)


def turned_share(canonical: Float[Tensor, "*point 3"]) -> Float[Tensor, "*point"]:
    """How much of the torso's turn places of the average body take: 0 from the jaw up, 1 at the shoulders.

    The jaw slopes: what lies below it in front is lower than at the nape.
    """
    jaw = 6.50 - 0.24 * smoothstep(canonical[..., 2], 0.2, 1.1)
    return smoothstep(jaw - canonical[..., 1], 0.0, 0.75)


def turn(
    points: Float[Tensor, "scene *point 3"],
    share: Tensor,
    yaw: Float[Tensor, " scene"],
    pivot: Float[Tensor, "scene 2"],
) -> Float[Tensor, "scene *point 3"]:
    """Turn points about vertical axes through `pivot` (x, z) by their share of `yaw`, radians.

    `share` is `*point` or `scene *point`, in [0, 1].
    """
    extra = (1,) * (points.ndim - 2)
    angle = share * yaw.view(-1, *extra)
    x, y, z = points.unbind(-1)
    px, pz = (p.view(-1, *extra) for p in pivot.unbind(1))
    x, z, c, s = x - px, z - pz, angle.cos(), angle.sin()
    return torch.stack([px + c * x + s * z, y, pz + c * z - s * x], -1)
