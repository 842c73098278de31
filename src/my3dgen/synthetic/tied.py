"""Hair tied back: every strand runs over the skull to one place behind and on into a tail or a bun.

Paths are closed formulas in the canonical frame of `hair` (decimetres), so loose strands can be blended into
them continuously.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.synthetic.noise import common_random, smoothstep

GATHERED = 0.5
"""The share of a strand's nodes that lies on the skull."""


def tied_strands(
    direction: Float[Tensor, "strand 3"],
    centre: Float[Tensor, "3"],
    skull: Float[Tensor, "scene strand over"],
    height: Float[Tensor, " scene"],
    tail: Float[Tensor, " scene"],
    bun: Float[Tensor, " scene"],
    wave: Float[Tensor, " scene"],
    nodes: int,
) -> Float[Tensor, "scene strand node 3"]:
    """Strands from roots seen in `direction` from the head's centre, gathered behind at `height` radians.

    `skull` is the distance from the centre that they keep at `gathered_directions`. Behind the tie `tail`
    decimetres hang down, or, as `bun` goes from 0 to 1, they wind into a knot. `wave` (0 to 1)
    spreads the tail.
    """
    over = gathered_directions(direction, height, skull.shape[2])
    on_head = centre + over * skull[..., None]
    out = tie_direction(height)[:, None, None]
    knot = centre + out * (1.06 * skull[:, :, -1:].mean(1, keepdim=True) + 0.02)[..., None]
    count = nodes - skull.shape[2]
    t = torch.arange(1, count + 1, device=skull.device) / count
    strands = len(direction)
    turn = common_random(strands, seed=36, device=skull.device) * (2 * math.pi)
    off = common_random(strands, seed=37, device=skull.device).sqrt()
    ragged = 1 - 0.35 * common_random(strands, seed=38, device=skull.device) ** 2
    side = torch.linalg.cross(out, out.new_tensor([0.0, 1.0, 0.0]).expand_as(out))
    side = F.normalize(side, dim=-1)
    up = torch.linalg.cross(side, out)

    # a tail leaves straight backwards and soon falls
    length = tail[:, None, None] * ragged[:, None] * t
    away = 0.20 * (1 - torch.exp(-length / 0.20))
    fall = length - 0.20 * (1 - torch.exp(-length / 0.20))
    full = 0.060 + (0.075 + 0.05 * wave[:, None, None]) * torch.sin(math.pi * (t * 0.9).clamp(0, 1))
    sway = 0.04 * wave[:, None, None] * torch.sin(7.0 * t + 0.6 * off[:, None])
    across = (full * (off * turn.cos())[:, None] + sway)[..., None]
    thick = (full * (off * turn.sin())[:, None])[..., None]
    # hanging hair lies across and behind; right at the tie it lies across and above
    hung = smoothstep(fall, 0.0, 0.25)[..., None]
    second = F.normalize(torch.lerp(up, out * out.new_tensor([1.0, 0.0, 1.0]), hung), dim=-1)
    down = out.new_tensor([0.0, -1.0, 0.0])
    hanging = knot + out * away[..., None] + down * fall[..., None] + side * across + second * thick

    # a bun is a torus without a hole, wound by each strand at its own place
    around = turn[:, None] + 2 * math.pi * 0.9 * t
    cut = 2 * math.pi * common_random(strands, seed=39, device=skull.device)[:, None] + 1.2 * t
    size = 0.13 + 0.06 * (tail / 2).clamp(0, 1)[:, None, None, None]
    wide = (
        (0.62 + 0.62 * cut.cos() * (0.6 + 0.4 * off[:, None]))[..., None]
        * size
        * smoothstep(t, 0.0, 0.3)[:, None]
    )
    tall = (0.72 + 0.72 * cut.sin() * (0.6 + 0.4 * off[:, None]))[..., None] * size
    wound = knot + (side * around.cos()[..., None] + up * around.sin()[..., None]) * wide + out * tall
    return torch.cat([on_head, torch.lerp(hanging, wound, bun[:, None, None, None])], 2)


def tie_direction(height: Float[Tensor, " scene"]) -> Float[Tensor, "scene 3"]:
    """From the head's centre to the tie, behind, `height` radians above the horizontal."""
    return torch.stack([torch.zeros_like(height), height.sin(), -height.cos()], -1)


def gathered_directions(
    direction: Float[Tensor, "strand 3"], height: Float[Tensor, " scene"], count: int
) -> Float[Tensor, "scene strand over 3"]:
    """Great circles from each root's direction to the tie's, in `count` steps, both ends included."""
    goal = tie_direction(height)[:, None] + 0.09 * (direction - (direction * direction.new_tensor([0, 0, 1])))
    goal = F.normalize(goal, dim=-1)
    cosine = (direction * goal).sum(-1, keepdim=True).clamp(-0.9995, 0.9995)
    angle = torch.acos(cosine)
    t = torch.linspace(0, 1, count, device=direction.device)
    a = torch.sin((1 - t) * angle) / angle.sin()
    b = torch.sin(t * angle) / angle.sin()
    return F.normalize(a[..., None] * direction[:, None] + b[..., None] * goal[:, :, None], dim=-1)
