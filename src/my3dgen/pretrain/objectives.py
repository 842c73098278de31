"""What a prior is trained for: exact labels where they exist, a discriminator for the rest.

The supervised part pairs two views of one head: the encoder turns the source view into a latent, the
generator renders it from the target camera. The adversarial part follows EG3D spec 4.2, on
the paired images and on heads drawn from the Gaussian of the encoder's latents.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.pretrain.discriminator import Discriminator
from my3dgen.prior.generator import Rendered


@dataclass(frozen=True)
class Weights:
    """Weight of each term of the generator's loss."""

    pixel: float = 1.0
    """L1 of the final image, eyes and mouth counted more."""
    raw: float = 0.5
    """L1 of the raw render."""
    gradient: float = 1.0
    """L1 of image gradients at three scales."""
    perceptual: float = 0.1
    """Feature distance of the final image."""
    alpha: float = 0.5
    """L1 of the opacity."""
    depth: float = 2.0
    """L1 of the distance along the ray, on the head."""
    smooth: float = 0.005
    """Difference of densities between neighbouring random points."""
    offsets: float = 0.02
    """Mean square of the encoder's offsets from W."""
    spread: float = 0.002
    """Mean square of the encoder's latents: nothing else keeps them from growing."""
    pose: float = 0.05
    """L1 of the encoder's camera, in `POSE_UNITS`."""
    paired: float = 0.015
    """Adversarial term on rendered target views."""
    unpaired: float = 0.1
    """Adversarial term on heads drawn from the prior."""
    r1: float = 1.0
    """Gradient penalty of the discriminator (gamma)."""


def downsample(images: Tensor, side: int) -> Tensor:
    """Antialiased area reduction to `side` (a divisor of the width)."""
    return F.avg_pool2d(images, images.shape[-1] // side)


def depth_at(depth: Float[Tensor, "batch 1 h w"], side: int) -> Float[Tensor, "batch 1 side side"]:
    """Depth at another resolution: the mean of what is covered, or the nearest value when enlarging."""
    if side >= depth.shape[-1]:
        return F.interpolate(depth, size=(side, side), mode="nearest")
    covered = downsample((depth > 0).to(depth), side)
    return downsample(depth, side) / covered.clamp_min(1e-6)


def gradient_distance(a: Tensor, b: Tensor, weight: Tensor, scales: int = 3) -> Tensor:
    """L1 between horizontal and vertical differences over a pyramid, weighted by pixel."""
    total = a.new_zeros(())
    delta = a - b
    for _ in range(scales):
        total = total + ((delta[..., :, 1:] - delta[..., :, :-1]).abs() * weight[..., :, 1:]).mean()
        total = total + ((delta[..., 1:, :] - delta[..., :-1, :]).abs() * weight[..., 1:, :]).mean()
        delta, weight = F.avg_pool2d(delta, 2), F.avg_pool2d(weight, 2)
    return total / scales


def reconstruction(
    rendered: Rendered,
    target: Float[Tensor, "batch 3 height width"],
    alpha: Float[Tensor, "batch 1 height width"],
    depth: Float[Tensor, "batch 1 low low"],
    weight: Float[Tensor, "batch 1 height width"],
) -> dict[str, Tensor]:
    """The supervised terms but the perceptual one, unweighted, by name."""
    low = rendered.image_raw.shape[-1]
    coverage = downsample(alpha, low)
    depth = depth_at(depth, low)
    inside = (coverage > 0.95) & (depth > 0)
    distance = (rendered.depth - depth).abs().clamp_max(0.3)
    return {
        "pixel": ((rendered.image - target).abs() * weight).mean(),
        "raw": (rendered.image_raw - downsample(target, low)).abs().mean(),
        "gradient": gradient_distance(rendered.image, target, weight),
        "alpha": (rendered.opacity - coverage).abs().mean(),
        "depth": ((distance * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1)).mean(),
    }


def generator_adversarial(logits: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Non-saturating loss of the generator, per image."""
    return F.softplus(-logits)


BLUR = 10.0
"""Sigma of the blur at its start, pixels."""


def blur_taps(sigma: float) -> Float[Tensor, " taps"]:
    """A Gaussian exp2(-(x / sigma)^2) cut at floor(3 sigma), of sum 1, among as many taps as `BLUR` needs.

    Sigma in pixels, 0 to `BLUR`; 0 gives taps that change nothing.
    """
    x = torch.arange(-math.floor(3 * BLUR), math.floor(3 * BLUR) + 1)
    taps = torch.exp2(-((x / max(sigma, 1e-6)) ** 2)) * (x.abs() <= math.floor(3 * sigma))
    return taps / taps.sum()


def blurred(
    images: Float[Tensor, "batch channels height width"], taps: Float[Tensor, " taps"]
) -> Float[Tensor, "batch channels height width"]:
    """Images filtered with `taps` along both axes, zeros outside."""
    channels, taps = images.shape[1], taps.to(images.dtype)
    rows, columns = (
        taps.view(shape).expand(channels, *shape[1:]) for shape in ((1, 1, 1, -1), (1, 1, -1, 1))
    )
    images = F.conv2d(images, rows, padding=(0, len(taps) // 2), groups=channels)
    return F.conv2d(images, columns, padding=(len(taps) // 2, 0), groups=channels)


def discriminator_loss(real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"]) -> Tensor:
    """Logistic loss of the discriminator."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def gradient_penalty(
    discriminator: Discriminator, image: Tensor, image_raw: Tensor, cameras: Tensor, dtype: torch.dtype
) -> Tensor:
    """R1: mean over images of the squared gradient of the logit by both images."""
    image, image_raw = image.detach().requires_grad_(), image_raw.detach().requires_grad_()
    logits = discriminator(image, image_raw, cameras, dtype=dtype)
    by_image, by_raw = torch.autograd.grad(logits.sum(), (image, image_raw), create_graph=True)
    return (by_image.float().square().sum((1, 2, 3)) + by_raw.float().square().sum((1, 2, 3))).mean()
