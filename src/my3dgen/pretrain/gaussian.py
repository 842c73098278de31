"""The Gaussian of an encoder's latents: followed while training, and turned into a mapping network.

The latents an encoder finds for training images are close to a Gaussian, and draws from it render as
well as the encodings themselves. EG3D's mapping can express w = mean + factor @ z exactly: its first two
layers pass z through in the range where leaky ReLU is linear, the third makes lrelu(-w), and since
lrelu(-lrelu(-w)) = 0.2 w the fourth undoes it.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.config import PriorConfig
from my3dgen.prior.mapping import Dense, MappingNetwork

SHIFT = 8.0
"""Keeps normalised z positive through the first two layers; z rarely exceeds 5 in size."""
SHRINK = 0.02
"""Share of the covariance taken from its diagonal, so that it has a Cholesky factor early on."""


class LatentGaussian:
    """Running mean and covariance of latents; `factor` changes in place, so captured graphs may read it."""

    def __init__(self, width: int, device: torch.device):
        self.mean = torch.zeros(width, device=device)
        self.square = torch.eye(width, device=device)
        """Running mean of w w^T."""
        self.factor = torch.eye(width, device=device)
        """Lower triangle L with covariance L L^T, as of the last `refresh`."""

    def follow(
        self, mean: Float[Tensor, " w_dim"], square: Float[Tensor, "w_dim w_dim"], decay: float
    ) -> None:
        """Move towards the first two moments of a batch by 1 - decay."""
        self.mean.lerp_(mean, 1 - decay)
        self.square.lerp_(square, 1 - decay)

    def set(self, mean: Float[Tensor, " w_dim"], covariance: Float[Tensor, "w_dim w_dim"]) -> None:
        """Become a known Gaussian."""
        self.mean.copy_(mean)
        self.square.copy_(covariance + torch.outer(mean, mean))
        self.refresh()

    @property
    def covariance(self) -> Float[Tensor, "w_dim w_dim"]:
        """Covariance of the latents so far."""
        return self.square - torch.outer(self.mean, self.mean)

    def refresh(self) -> None:
        """Find the factor anew (a decomposition of w_dim x w_dim, so not at every step)."""
        self.factor.copy_(factor_of(self.covariance).to(self.factor))

    def draw(self, z: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Latents of standard normal z."""
        return self.mean + z @ self.factor.T


def moments(latents: Float[Tensor, "batch w_dim"]) -> tuple[Tensor, Tensor]:
    """Means of w and of w w^T."""
    return latents.mean(0), latents.T @ latents / len(latents)


def factor_of(covariance: Float[Tensor, "w_dim w_dim"]) -> Float[Tensor, "w_dim w_dim"]:
    """Cholesky factor, in float64, of a covariance shrunk a little towards its diagonal."""
    covariance = covariance.double()
    diagonal = covariance.diagonal().clamp_min(1e-6)
    return torch.linalg.cholesky((1 - SHRINK) * covariance + SHRINK * torch.diag(diagonal))


def has_closed_form(config: PriorConfig) -> bool:
    """Whether `fit_mapping` can set the mapping of such a prior."""
    blind = config.c_gen_conditioning_zero or config.c_scale == 0
    return config.mapping_layers == 4 and config.z_dim == config.w_dim and blind


@torch.no_grad()
def fit_mapping(
    mapping: MappingNetwork, mean: Float[Tensor, " w_dim"], covariance: Float[Tensor, "w_dim w_dim"]
) -> None:
    """Set the mapping (and its mean latent) so that z ~ N(0, 1) draws from this Gaussian, in place.

    Raises ValueError unless the mapping has four layers, z as long as w, and ignores the camera.
    """
    width = len(mean)
    dense = [part for part in mapping.children() if isinstance(part, Dense) and part is not mapping.embed]
    if len(dense) != 4 or mapping.sees_camera or dense[0].weight.shape[1] != 2 * width:
        raise ValueError("the closed form needs four layers, z as long as w, and no camera")
    mean, factor = mean.double(), factor_of(covariance)
    same, half = torch.eye(width, dtype=torch.float64), math.sqrt(0.5)  # the layers' gain is sqrt(2)
    camera = torch.zeros_like(same)
    layers = [
        (torch.cat([same, camera], 1) * half, torch.full((width,), SHIFT * half)),
        (same * half, torch.zeros(width)),
        (-factor, factor.sum(1) * SHIFT - mean),
        (-2.5 * same, torch.zeros(width)),
    ]
    for layer, (weight, bias) in zip(dense, layers, strict=True):
        layer.weight.copy_(weight * math.sqrt(weight.shape[1]) / layer.lr_mul)
        layer.bias.copy_(bias / layer.lr_mul)
    mapping.embed.weight.zero_()
    mapping.embed.bias.zero_()
    mapping.w_avg.copy_(mean)
