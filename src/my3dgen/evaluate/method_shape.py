"""Is the shape right? Floaters around the head, and the error of its depth, against the true head.

Depth is compared ray by ray from the view's camera. A crop does not tell how far away its head is, so one
shift a view, the median difference, is taken out; the scale is not fitted, for a flat head shall not pass.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Maps = Float[Tensor, "view side side"]

MARGIN = 0.04
"""Share of the picture's width by which the true outline is widened before what lies outside counts."""
MET = 0.5
"""Opacity, and share of a cell covered by the true head, above which a ray has a depth."""


def floaters(
    opacity: Float[Tensor, "view r r"], masks: Float[Tensor, "view 1 size size"]
) -> Float[Tensor, " view"]:
    """Share of a head's opacity outside the true outline, widened by `MARGIN`; NaN where nothing is drawn."""
    reach = max(1, round(MARGIN * masks.shape[-1]))
    wide = F.max_pool2d(masks, 2 * reach + 1, stride=1, padding=reach)
    inside = F.adaptive_max_pool2d(wide, opacity.shape[-1])[:, 0]
    return (opacity * (1 - inside)).sum((1, 2)) / opacity.sum((1, 2))


def depth_error(
    depth: Maps, opacity: Maps, truth: Float[Tensor, "view 64 64"], masks: Float[Tensor, "view 1 size size"]
) -> tuple[Float[Tensor, " view"], Float[Tensor, " view"]]:
    """(mean absolute error in world units after the best shift, share of the head's rays without depth).

    The error of a view without any common ray is NaN.
    """
    cover = F.adaptive_avg_pool2d(masks, truth.shape[-1])[:, 0]
    depth, opacity = (
        F.interpolate(x[:, None], truth.shape[-2:], mode="bilinear", antialias=True)[:, 0]
        for x in (depth, opacity)
    )
    head = (cover > MET) & (truth > 0)
    met = head & (opacity > MET)
    errors = []
    for made, true, rays in zip(depth, truth, met, strict=True):
        apart = (made - true)[rays]
        errors.append((apart - apart.median()).abs().mean() if len(apart) else apart.new_tensor(float("nan")))
    return torch.stack(errors), 1 - met.sum((1, 2)) / head.sum((1, 2))
