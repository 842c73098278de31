"""Glasses: two rims, a bridge and temples as swept tubes; about one head in twelve wears them."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from my3dgen.synthetic.factors import block
from my3dgen.synthetic.noise import smoothstep

_RIM, _REST, _AROUND = 41, 12, 6


@dataclass(frozen=True)
class Glasses:
    """Tubes in decimetres; without glasses they have no thickness and are never drawn."""

    points: Float[Tensor, "scene vertex 3"]
    normals: Float[Tensor, "scene vertex 3"]
    colour: Float[Tensor, "scene 3"]


def glasses_triangles(device: str | torch.device = "cpu") -> Int[Tensor, "triangle 3"]:
    """The triangles of every pair: rim, rim, temple, temple, bridge."""
    faces, first = [], 0
    for rings in (_RIM, _RIM, _REST, _REST, _REST):
        i = torch.arange(rings - 1)[:, None] * _AROUND + first
        j = torch.arange(_AROUND)[None]
        k = (j + 1) % _AROUND
        a, b, c, d = i + j, i + k, i + _AROUND + k, i + _AROUND + j
        faces += [torch.stack([a, b, c], -1).view(-1, 3), torch.stack([a, c, d], -1).view(-1, 3)]
        first += rings * _AROUND
    return torch.cat(faces).to(device)


def build_glasses(
    factors: Float[Tensor, "scene factors"],
    eyes: Float[Tensor, "scene 2 3"],
    cornea: Float[Tensor, " scene"],
    ear: Float[Tensor, "scene 3"],
) -> Glasses:
    """Fit glasses to eyeball centres, the foremost depth of the eyes and the left ear, all in decimetres."""
    f = block(factors, "glasses")
    presence = smoothstep(f["presence"], 1.38, 1.46)
    u = torch.special.ndtr(f["shape"])
    middle = eyes.mean(1)
    half = (eyes[:, 0] - eyes[:, 1]).norm(dim=-1) / 2
    front = cornea - middle[:, 2] + 0.13
    wide, high = 0.225 + 0.015 * torch.cos(6 * u), 0.150 + 0.045 * u
    power = 2 / (2.1 + 1.9 * u)
    turn = torch.linspace(0, 2 * math.pi, _RIM, device=factors.device)
    lines = []
    for side in (1.0, -1.0):
        cx = _power(turn.cos(), power) * wide[:, None]
        cy = _power(turn.sin(), power) * high[:, None]
        x = side * (half[:, None] + 0.02) + cx
        lines.append(torch.stack([x, cy - 0.02, _curved(x, half, front)], -1))
    rest = torch.linspace(0, 1, _REST, device=factors.device)
    hinge = half + 0.02 + wide
    for side in (1.0, -1.0):
        behind = ear - middle
        start = torch.stack(
            [side * hinge, 0.06 * torch.ones_like(hinge), _curved(side * hinge[:, None], half, front)[:, 0]],
            -1,
        )
        end = torch.stack([side * (behind[:, 0] + 0.06), 0.04 * torch.ones_like(hinge), behind[:, 2]], -1)
        lines.append(start[:, None] + (end - start)[:, None] * rest[:, None])
    t = rest * 2 - 1
    gap = (half + 0.02 - wide)[:, None]
    lines.append(
        torch.stack(
            [t * gap, (0.06 - 0.05 * t**2).expand_as(t * gap), front[:, None] + 0.02 - 0.02 * t**2], -1
        )
    )
    thick = (0.008 + 0.009 * u) * presence
    tubes = [_tube(line + middle[:, None], thick) for line in lines]
    points, normals = torch.cat([t[0] for t in tubes], 1), torch.cat([t[1] for t in tubes], 1)
    hue = torch.tanh(f["colour"])
    colour = torch.stack(
        [
            0.035 + 0.045 * hue.clamp_min(0),
            0.032 + 0.018 * hue.clamp_min(0),
            0.034 + 0.02 * (-hue).clamp_min(0),
        ],
        -1,
    )
    return Glasses(points, normals, colour)


def _power(x: Tensor, power: Tensor) -> Tensor:
    return x.sign() * x.abs().clamp_min(1e-6) ** power[:, None]


def _curved(x: Tensor, half: Tensor, front: Tensor) -> Tensor:
    return front[:, None] - 0.35 * (x.abs() - half[:, None]).clamp_min(0) ** 1.3


def _tube(line: Float[Tensor, "scene ring 3"], radius: Float[Tensor, " scene"]) -> tuple[Tensor, Tensor]:
    along = torch.cat(
        [line[:, 1:2] - line[:, :1], line[:, 2:] - line[:, :-2], line[:, -1:] - line[:, -2:-1]], 1
    )
    along = F.normalize(along, dim=-1)
    a = F.normalize(torch.linalg.cross(along, along.new_tensor([0.1, 0.2, 1.0]).expand_as(along)), dim=-1)
    b = torch.linalg.cross(along, a)
    turn = torch.arange(_AROUND, device=line.device) * (2 * math.pi / _AROUND)
    normal = a[:, :, None] * turn.cos()[:, None] + b[:, :, None] * turn.sin()[:, None]
    return (line[:, :, None] + normal * radius[:, None, None, None]).flatten(1, 2), normal.flatten(1, 2)
