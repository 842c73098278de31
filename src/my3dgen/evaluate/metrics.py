"""What a rendered picture is scored by, against the true picture of the same view.

Four figures, none of them minimised directly by training with the networks named here:

- `psnr`: over the head's own pixels. A white background is easy to hit and would raise it, so it is
  left out; `psnr_image` is the customary figure over the whole picture.
- `ssim`: structural similarity (Wang et al. 2004) over the head's own pixels; 1 is equal.
- `perceptual`: distance of channel-normalised features of a network that no loss uses; 0 is equal.
- `identity`: nearness of face embeddings of a network that no loss uses (`my3dgen.identity.similarity`);
  1 is the same picture, 0.5 that network's limit for photos of one person.

They follow the protocol of EG3D spec 6.2 with networks that may be shipped, under those networks' own
names: they are not LPIPS or ArcFace figures and cannot be compared with them.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.identity import load_identity, similarity
from my3dgen.perceptual import load_perceptual

PERCEPTUAL_NETWORK = "lite0-feat"
IDENTITY_NETWORK = "dlib"
LOWER_IS_BETTER = frozenset({"perceptual"})
WINDOW, SIGMA = 11, 1.5
"""Pixels and spread of SSIM's Gaussian window."""
STABILISERS = (0.01**2, 0.03**2)
"""SSIM's constants for values in [0, 1]."""

Images = Float[Tensor, "batch 3 height width"]
Masks = Float[Tensor, "batch 1 height width"]


@dataclass(frozen=True)
class Score:
    """The figures of one picture, or the mean of several."""

    psnr: float
    """Decibels over the head's pixels; higher is nearer."""
    psnr_image: float
    """Decibels over the whole picture; higher is nearer."""
    perceptual: float
    """Feature distance; lower is nearer."""
    identity: float
    """Nearness of face embeddings, at most 1; higher is nearer."""
    ssim: float
    """Structural similarity over the head's pixels, at most 1; higher is nearer."""

    def as_dict(self) -> dict[str, float]:
        """The figures by name, rounded to what they can carry."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def mean_score(scores: Iterable[Score]) -> Score:
    """The mean of every figure. Raises ValueError if there is none."""
    scores = list(scores)
    if not scores:
        raise ValueError("no scores to average")
    return Score(**{f.name: sum(getattr(s, f.name) for s in scores) / len(scores) for f in fields(Score)})


def psnr(images: Images, truth: Images, masks: Masks | None = None) -> Float[Tensor, " batch"]:
    """Peak signal-to-noise ratio in decibels, one figure a picture.

    Images are in [-1, 1], so the peak-to-peak range is 2; rendered values beyond it are clamped, as a
    saved picture would be. `masks` in [0, 1] weigh the pixels that count. Equal pictures give 100 dB,
    not infinity, so that means stay finite.
    """
    error = (images.clamp(-1, 1) - truth).square().mean(dim=1, keepdim=True)
    weight = torch.ones_like(error) if masks is None else masks
    mse = (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp_min(1e-8)
    return -10 * torch.log10((mse / 4).clamp_min(1e-10))


def ssim(images: Images, truth: Images, masks: Masks | None = None) -> Float[Tensor, " batch"]:
    """Structural similarity of pictures in [-1, 1], the mean of their channels, one figure a picture.

    Windows are Gaussian and reach over the border by reflection, so sides are above 5 pixels. `masks` in
    [0, 1] weigh the pixels that count.
    """
    x, y = (images.clamp(-1, 1) + 1) / 2, (truth + 1) / 2
    steps = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    window = torch.exp(-steps.square() / (2 * SIGMA**2))
    kernel = torch.outer(window, window) / window.sum().square()

    def blurred(values: Tensor) -> Tensor:
        padded = F.pad(values, [WINDOW // 2] * 4, mode="reflect")
        return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)

    mean_x, mean_y = blurred(x), blurred(y)
    variances = blurred(x * x) - mean_x.square() + blurred(y * y) - mean_y.square()
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = STABILISERS
    alike = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    alike = alike / ((mean_x.square() + mean_y.square() + c1) * (variances + c2))
    alike = alike.mean(1, keepdim=True)
    weight = torch.ones_like(alike) if masks is None else masks
    return (alike * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1e-8)


@dataclass(frozen=True)
class Judge:
    """The two metric networks, loaded once (`load_judge`)."""

    perceptual: Callable[[Tensor, Tensor], Tensor]
    embed: Callable[[Tensor, Tensor], Tensor]

    @torch.no_grad()
    def score(
        self,
        images: Images,
        truth: Images,
        masks: Masks | None,
        cameras: Float[Tensor, "batch 25"],
    ) -> list[Score]:
        """Score each picture against the truth seen by the same camera.

        `masks` mark the head and count for `psnr` and `ssim`; the networks see the whole pictures.
        """
        images = images.clamp(-1, 1)
        columns = (
            psnr(images, truth, masks),
            psnr(images, truth),
            self.perceptual(images, truth),
            similarity(self.embed(images, cameras), self.embed(truth, cameras)),
            ssim(images, truth, masks),
        )
        return [Score(*row) for row in torch.stack([c.float() for c in columns], dim=1).tolist()]


def load_judge(device: str | torch.device = "cpu") -> Judge:
    """The shipped metric networks. Raises MissingWeightsError if a file is absent."""
    return Judge(load_perceptual(PERCEPTUAL_NETWORK, device), load_identity(IDENTITY_NETWORK, device).embed)
