"""More samples where the first ones found something (EG3D spec 1.12)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool1d, pad


@torch.no_grad()
def importance_depths(
    depths: Float[Tensor, "batch rays samples"],
    weights: Float[Tensor, "batch rays intervals"],
    u: Float[Tensor, "batch rays fine"],
) -> Float[Tensor, "batch rays fine"]:
    """Distances whose density follows the smoothed interval weights; `u` in [0, 1) picks quantiles.

    EG3D assigns each interval's weight to the bin half an interval nearer, and never uses the
    last bin. Both are kept: checkpoints were trained with them. No gradient.
    """
    spread = max_pool1d(weights.flatten(0, 1)[:, None], 2, 1, padding=1)[:, 0]
    smooth = ((spread[:, 1:] + spread[:, :-1]) / 2 + 0.01).unflatten(0, weights.shape[:2])
    bins = (depths[..., 1:] + depths[..., :-1]) / 2
    mass = smooth[..., 1:-1] + 1e-5
    cdf = pad((mass / mass.sum(-1, keepdim=True)).cumsum(-1), (1, 0))
    above = torch.searchsorted(cdf, u.contiguous(), right=True)
    below = (above - 1).clamp_min(0)
    above = above.clamp_max(cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, below), cdf.gather(-1, above)
    step = torch.where(high - low < 1e-5, 1.0, high - low)
    start, end = bins.gather(-1, below), bins.gather(-1, above)
    return start + (u - low) / step * (end - start)
