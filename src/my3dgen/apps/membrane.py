"""A membrane: the smoothest values between known ones, as a soap film hangs between wires.

It bridges what is missing in a photo, and spreads the difference at a seam until none is seen: what
Poisson blending adds to a picture is the membrane of that difference (Perez et al. 2003).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

RELAXATIONS = 40  # at each size; what they leave is low, and was settled at a smaller size
HASTE = 1.8  # of a relaxation: best for holes of about thirty pixels (successive over-relaxation)


def membrane(
    values: Float[Tensor, "channels height width"], known: Bool[Tensor, "1 height width"]
) -> Float[Tensor, "channels height width"]:
    """`values` where they are known, harmonic in between: each pixel the mean of its four neighbours.

    Solved from coarse to fine, to a few thousandths of the values' range. 0 where nothing is known at all.
    """
    if known.all():
        return values.clone()
    rows, columns = (~known[0]).any(1).nonzero()[:, 0], (~known[0]).any(0).nonzero()[:, 0]
    # only what is missing is worked on, with one row of the known around it
    top, left = (max(0, int(at.min()) - 1) for at in (rows, columns))
    part = (..., slice(top, int(rows.max()) + 2), slice(left, int(columns.max()) + 2))
    result = values.clone()
    result[part] = _solve(values[part][None], known[part][None])[0]
    return result


def _solve(
    values: Float[Tensor, "1 channels height width"], known: Bool[Tensor, "1 1 height width"]
) -> Float[Tensor, "1 channels height width"]:
    here = known.to(values.dtype)
    if max(values.shape[-2:]) <= 4 or known.all():
        share = here.sum().clamp_min(1)
        start = ((values * here).sum((2, 3), keepdim=True) / share).expand_as(values)
    else:
        mass = F.avg_pool2d(here, 2, ceil_mode=True)
        coarse = F.avg_pool2d(torch.where(known, values, 0), 2, ceil_mode=True) / mass.clamp_min(1e-6)
        coarse = _solve(coarse, mass > 0)
        start = F.interpolate(coarse, values.shape[-2:], mode="bilinear", align_corners=False)
    film = torch.where(known, values, start)
    rows, columns = (torch.arange(n, device=film.device) for n in film.shape[-2:])
    even = (rows[:, None] + columns) % 2 == 0
    halves = [HASTE * (~known & half) for half in (even, ~even)]  # no pixel is its neighbour's neighbour
    for moving in halves * RELAXATIONS:
        around = F.pad(film, (1, 1, 1, 1), mode="replicate")
        mean = (
            around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
        ) / 4
        film = film + moving * (mean - film)
    return film
