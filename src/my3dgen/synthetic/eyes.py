"""Eyeballs: an analytic sphere with a corneal bulge, turned by the gaze."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

RINGS, SECTORS = 30, 48
LAST_RING = 1.9  # radians from the pupil; the back of the ball is never seen
BULGE, BULGE_WIDTH = 0.085, 0.33  # corneal height in eyeball radii and its angular spread


def eye_template() -> tuple[
    Float[Tensor, "eyevertex 3"], Float[Tensor, " eyevertex"], Int[Tensor, "eyetriangle 3"]
]:
    """Unit directions (+z is the pupil), radii (1 is the ball) and triangles of an eyeball."""
    polar = torch.linspace(0, LAST_RING, RINGS + 1)[1:].repeat_interleave(SECTORS)
    around = (torch.arange(SECTORS) * (2 * math.pi / SECTORS)).repeat(RINGS)
    ring = [polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos()]
    directions = torch.cat([torch.tensor([[0.0, 0.0, 1.0]]), torch.stack(ring, 1)])
    angle = torch.cat([torch.zeros(1), polar])
    radii = 1 + BULGE * torch.exp(-0.5 * (angle / BULGE_WIDTH) ** 2)
    here = torch.arange(SECTORS)
    beyond = (here + 1) % SECTORS
    cap = torch.stack([torch.zeros_like(here), 1 + here, 1 + beyond], 1)
    bands = []
    for k in range(RINGS - 1):
        inner, outer = 1 + k * SECTORS, 1 + (k + 1) * SECTORS
        bands += [
            torch.stack([inner + here, outer + here, outer + beyond], 1),
            torch.stack([inner + here, outer + beyond, inner + beyond], 1),
        ]
    return directions, radii, torch.cat([cap, *bands])


def gaze_rotation(yaw: Float[Tensor, " scene"], pitch: Float[Tensor, " scene"]) -> Float[Tensor, "scene 3 3"]:
    """Rotation that turns +z to the gaze; yaw > 0 looks to +x, pitch > 0 up, radians."""
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    zero = torch.zeros_like(yaw)
    rows = [cy, -sy * sp, sy * cp, zero, cp, sp, -sy, -cy * sp, cy * cp]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def eyeballs(
    helpers: Float[Tensor, "scene 2 helper 3"],
    rotation: Float[Tensor, "scene 3 3"],
    directions: Float[Tensor, "eyevertex 3"],
    radii: Float[Tensor, " eyevertex"],
) -> tuple[Float[Tensor, "scene 2 eyevertex 3"], Float[Tensor, "scene 2 3"], Float[Tensor, "scene 2"]]:
    """Points of both eyeballs, their centres and radii, fitted to the mesh's helper spheres."""
    centres = helpers.mean(2)
    radius = (helpers - centres[:, :, None]).norm(dim=-1).mean(2)
    ball = (directions * radii[:, None]) @ rotation.transpose(1, 2)
    return centres[:, :, None] + radius[:, :, None, None] * ball[:, None], centres, radius
