"""Light: three soft lamps (key, fill, rim) under a sky above a ground, all from the light factors."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.synthetic.factors import block
from my3dgen.synthetic.noise import smoothstep


@dataclass(frozen=True)
class Light:
    """The light of each scene, in linear RGB; directions point from the head to the light."""

    direction: Float[Tensor, "scene lamp 3"]
    colour: Float[Tensor, "scene lamp 3"]
    """Irradiance that a surface facing the lamp receives, over pi."""
    sharpness: Float[Tensor, "scene lamp"]
    """Concentration of the lamp's lobe; about 4 (a large window) to 26 (a lamp)."""
    sky: Float[Tensor, "scene 3"]
    ground: Float[Tensor, "scene 3"]
    exposure: Float[Tensor, " scene"]


def _unit_cdf(z: Tensor) -> Tensor:
    return torch.special.ndtr(z)


def _tint(warmth: Tensor) -> Tensor:
    """White balance from cool (-1) to warm (+1), of equal brightness."""
    return torch.stack([1 + 0.14 * warmth, 1 + 0.01 * warmth, 1 - 0.20 * warmth], -1)


def _towards(azimuth: Tensor, elevation: Tensor) -> Tensor:
    return torch.stack(
        [azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], -1
    )


def light_from_factors(factors: Float[Tensor, "scene factors"]) -> Light:
    """Decode the light block; azimuth 0 is in front of the face, positive towards +x."""
    f = block(factors, "light")
    azimuth = 1.25 * torch.tanh(0.62 * f["key_azimuth"])
    elevation = 0.42 + 0.28 * torch.tanh(0.8 * f["key_elevation"])
    key = 0.62 + 0.50 * _unit_cdf(f["key_strength"])
    fill_azimuth = -0.9 * azimuth + 0.5 * torch.tanh(f["fill_azimuth"])
    fill = 0.10 + 0.30 * _unit_cdf(f["fill_strength"])
    rim_azimuth = math.pi + 0.95 * torch.tanh(f["rim_azimuth"])
    rim = 0.75 * smoothstep(_unit_cdf(f["rim_strength"]), 0.3, 1.0)
    warm = 0.75 * torch.tanh(0.7 * f["key_warmth"])
    fixed = torch.full_like(azimuth, 0.12)
    return Light(
        direction=torch.stack(
            [
                _towards(azimuth, elevation),
                _towards(fill_azimuth, fixed),
                _towards(rim_azimuth, fixed + 0.35),
            ],
            1,
        ),
        colour=torch.stack(
            [
                _tint(warm) * key[:, None],
                _tint(0.6 * torch.tanh(0.7 * f["fill_warmth"])) * fill[:, None],
                _tint(0.7 * torch.tanh(0.7 * f["rim_warmth"])) * rim[:, None],
            ],
            1,
        ),
        sharpness=torch.stack([4 + 22 * _unit_cdf(f["key_sharpness"]), fixed * 0 + 4, fixed * 0 + 12], 1),
        sky=_tint(-0.2 + 0.45 * torch.tanh(f["sky_warmth"]))
        * (0.30 + 0.30 * _unit_cdf(f["sky_strength"]))[:, None],
        ground=_tint(0.25 + 0.4 * torch.tanh(f["ground_warmth"]))
        * (0.16 + 0.20 * _unit_cdf(f["ground_strength"]))[:, None],
        exposure=torch.exp2(0.22 * torch.tanh(f["exposure"])),
    )


def sphere_directions(count: int, device: str | torch.device) -> Float[Tensor, "direction 3"]:
    """`count` unit vectors spread evenly over the sphere (a Fibonacci spiral)."""
    i = torch.arange(count, device=device) + 0.5
    polar = torch.acos(1 - 2 * i / count)
    turn = math.pi * (1 + math.sqrt(5)) * i
    return torch.stack([turn.cos() * polar.sin(), polar.cos(), turn.sin() * polar.sin()], 1)


def lamp_weights(
    light: Light, directions: Float[Tensor, "direction 3"]
) -> Float[Tensor, "scene direction lamp"]:
    """How much of each lamp comes from each direction; sums to 1 over directions."""
    facing = torch.einsum("dk,slk->sdl", directions, light.direction)
    return torch.softmax(light.sharpness[:, None] * (facing - 1), 1)


def ambient(light: Light, directions: Float[Tensor, "direction 3"]) -> Float[Tensor, "scene direction 3"]:
    """Radiance of sky and ground in each direction."""
    height = (directions[:, 1:2] * 0.5 + 0.5)[None]
    return light.ground[:, None] * (1 - height) + light.sky[:, None] * height
