"""Distances between a rendering and a photo, and what a photo becomes before it is compared.

Every distance is one figure a picture, so that a mean over pictures is never moved by batching.
Images are in [-1, 1]; weights say how much each pixel counts and average 1 over a picture.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch 3 height width"]
Weights = Float[Tensor, "batch 1 height width"]
PerImage = Float[Tensor, " batch"]


def on_white(images: Images, masks: Weights) -> Images:
    """Photos with everything outside the mask (in [0, 1], 1 is the head) turned white.

    A prior that renders heads on white cannot explain a living room.
    """
    return masks * images + (1 - masks)


def shrink(
    images: Float[Tensor, "batch channels height width"], size: int
) -> Float[Tensor, "batch channels size size"]:
    """Square pictures at another size, smoothed first when that is smaller (EG3D spec 5.6: antialiased)."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def pixel_weights(interest: Weights, background: float = 0.25) -> Weights:
    """Weights that go from `background` where the interest is 0 to 1 where it is 1, averaging 1.

    The background keeps some weight: it draws the silhouette.
    """
    weights = background + (1 - background) * interest
    return weights / weights.mean(dim=(1, 2, 3), keepdim=True)


def squared_error(images: Images, targets: Images, weights: Weights) -> PerImage:
    """Weighted mean squared error."""
    return ((images - targets).square() * weights).mean(dim=(1, 2, 3))


def absolute_error(images: Images, targets: Images, weights: Weights) -> PerImage:
    """Weighted mean absolute error: less drawn by the few pixels that cannot be matched."""
    return ((images - targets).abs() * weights).mean(dim=(1, 2, 3))


def gradient_error(images: Images, targets: Images, weights: Weights, scales: int = 3) -> PerImage:
    """Weighted mean absolute error of the horizontal and vertical differences, summed over `scales`
    halvings of the picture. It speaks for edges (lids, lips, hairline), which squared error lets blur.
    """
    error, total = images - targets, images.new_zeros(len(images))
    for scale in range(scales):
        if scale:
            if min(error.shape[-2:]) < 4:
                break  # half of it has no neighbours any more
            error, weights = F.avg_pool2d(error, 2), F.avg_pool2d(weights, 2)
        across, down = error.diff(dim=3).abs(), error.diff(dim=2).abs()
        total = total + (across * weights[..., 1:]).mean(dim=(1, 2, 3))
        total = total + (down * weights[..., 1:, :]).mean(dim=(1, 2, 3))
    return total
