"""Volume rendering along rays by the mid-point rule (EG3D spec 1.11)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, softplus

Samples = Float[Tensor, "batch rays samples"]
Intervals = Float[Tensor, "batch rays intervals"]


def interval_weights(densities: Samples, depths: Samples) -> Intervals:
    """How much each interval between two samples contributes to its ray; they sum to the opacity.

    `densities` are raw, `depths` sorted. A raw density of 0 is not empty: it is softplus(-1).
    """
    thickness = softplus(_middle(densities) - 1) * (depths[..., 1:] - depths[..., :-1])
    # the exponential of a sum equals EG3D's product of (1 - alpha + 1e-10) up to the 1e-10, and
    # unlike the product its gradient needs no synchronisation with the host
    before = pad(thickness.cumsum(-1)[..., :-1], (1, 0))
    return -torch.expm1(-thickness) * torch.exp(-before)


def sample_weights(weights: Intervals) -> Samples:
    """The weight of each sample's colour, since an interval's colour is the mean of its ends."""
    return (pad(weights, (0, 1)) + pad(weights, (1, 0))) / 2


def weighted_sum(
    weights: Samples, colours: Float[Tensor, "batch rays samples colours"]
) -> Float[Tensor, "batch rays colours"]:
    """The sum of the samples' colours, each times its weight."""
    if weights.device.type == "cpu":  # many products of a row with few columns take four times as long there
        return (weights[..., None] * colours).sum(-2)
    return (weights[..., None, :] @ colours)[..., 0, :]


def on_background(
    colours: Float[Tensor, "batch rays colours"], opacity: Float[Tensor, "batch rays"], *, white_back: bool
) -> Float[Tensor, "batch rays colours"]:
    """Colours on a white or black background, from about [0, 1] to about [-1, 1]."""
    if white_back:
        colours = colours + 1 - opacity[..., None]
    return 2 * colours - 1


def mean_depth(weights: Intervals, depths: Samples) -> Float[Tensor, "batch rays"]:
    """Mean distance of what a ray meets; +inf for a ray that meets nothing."""
    return depth_of((weights * _middle(depths)).sum(-1), weights.sum(-1))


def depth_of(
    moment: Float[Tensor, "batch rays"], opacity: Float[Tensor, "batch rays"]
) -> Float[Tensor, "batch rays"]:
    """The mean distance, from the weighted sum of distances and the sum of weights."""
    met = opacity > 1e-12  # below this, dividing would be noise and its gradient overflow
    return torch.where(met, moment / torch.where(met, opacity, 1.0), torch.inf)


def march(
    colours: Float[Tensor, "batch rays samples colours"],
    densities: Samples,
    depths: Samples,
    *,
    white_back: bool,
) -> tuple[Float[Tensor, "batch rays colours"], Float[Tensor, "batch rays"], Intervals]:
    """(colours in [-1, 1], depth, interval weights) of sorted samples.

    Depth is clamped to the smallest and largest sample of the whole batch, as EG3D does.
    """
    weights = interval_weights(densities, depths)
    colour = weighted_sum(sample_weights(weights), colours)
    colour = on_background(colour, weights.sum(-1), white_back=white_back)
    return colour, mean_depth(weights, depths).clamp(depths.amin(), depths.amax()), weights


def _middle(values: Samples) -> Intervals:
    return (values[..., 1:] + values[..., :-1]) / 2
