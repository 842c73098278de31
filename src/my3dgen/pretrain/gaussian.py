"""A mapping network in closed form: Gaussian z to a Gaussian of latents with given mean and covariance.

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
SHRINK = 0.1
"""Share of the covariance taken from its diagonal, against the noise of few samples."""


def has_closed_form(config: PriorConfig) -> bool:
    """Whether `fit_mapping` can set the mapping of such a prior."""
    blind = config.c_gen_conditioning_zero or config.c_scale == 0
    return config.mapping_layers == 4 and config.z_dim == config.w_dim and blind


@torch.no_grad()
def fit_mapping(mapping: MappingNetwork, latents: Float[Tensor, "samples w_dim"]) -> None:
    """Set the mapping (and its mean latent) so that z ~ N(0, 1) draws from the latents' Gaussian, in place.

    The covariance is shrunk toward its diagonal. Raises ValueError unless the mapping has four layers,
    z as long as w, and ignores the camera.
    """
    width = latents.shape[1]
    dense = [part for part in mapping.children() if isinstance(part, Dense) and part is not mapping.embed]
    if len(dense) != 4 or mapping.sees_camera or dense[0].weight.shape[1] != 2 * width:
        raise ValueError("the closed form needs four layers, z as long as w, and no camera")
    latents = latents.double()
    mean = latents.mean(0)
    covariance = torch.cov(latents.T)
    covariance = (1 - SHRINK) * covariance + SHRINK * torch.diag(covariance.diagonal())
    factor = torch.linalg.cholesky(covariance)
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
