"""Where an inversion looks for its latents: all of W or W+, or a person's own alpha-space.

A latent space holds optimiser variables for some photos, each photo independent of the others; it
turns them into latents and says how far each has strayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.alpha import alpha_penalty, decode, layer_alphas
from my3dgen.cameras import frontal_camera

if TYPE_CHECKING:
    from my3dgen.prior.generator import Generator

Latents = Float[Tensor, "count num_ws w_dim"]


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and spread of the latents a prior draws: w = mean + spread @ u with u standard normal."""

    mean: Float[Tensor, " w_dim"]
    spread: Float[Tensor, "w_dim w_dim"]

    def decode(self, u: Float[Tensor, "*shape w_dim"]) -> Float[Tensor, "*shape w_dim"]:
        """Latents of coordinates that are standard normal under the prior."""
        return self.mean + u @ self.spread.T

    def encode(self, w: Float[Tensor, "*shape w_dim"]) -> Float[Tensor, "*shape w_dim"]:
        """Coordinates of latents; the inverse of `decode` where the prior spreads at all."""
        return ((w - self.mean).double() @ torch.linalg.pinv(self.spread.double(), rtol=1e-4).T).float()


@torch.no_grad()
def latent_statistics(generator: Generator, count: int = 4000, seed: int = 123) -> LatentStatistics:
    """Statistics of `count` latents at the average frontal camera (EG3D spec 5.7).

    The spec keeps one scalar deviation; the whole covariance makes every direction equally easy.
    """
    config, device = generator.config, generator.w_avg.device
    z = torch.randn(count, config.z_dim, generator=torch.Generator().manual_seed(seed)).to(device)
    frontal = frontal_camera(radius=config.camera_radius, pivot=config.camera_pivot, focal=config.focal)
    w = generator.mapping(z, frontal.to(device).expand(count, -1))[:, 0]
    values, axes = torch.linalg.eigh(torch.cov(w.double().T))
    return LatentStatistics(w.mean(0), (axes * values.clamp_min(0).sqrt()).float())


@runtime_checkable
class LatentSpace(Protocol):
    """See the module's docstring. `variables` are leaves, each with its own learning rate."""

    def variables(self) -> list[tuple[Tensor, float]]: ...
    def ws(self) -> Latents: ...
    def strain(self) -> Float[Tensor, " count"]: ...


class WSpace:
    """W (one vector for all layers) or, with `plus`, W+ (one a layer), in units of the prior's spread.

    `start` has one row a photo, or in W+ also one a layer.
    """

    def __init__(
        self,
        statistics: LatentStatistics,
        num_ws: int,
        start: Float[Tensor, "count rows w_dim"],
        *,
        plus: bool = False,
        rate: float = 0.15,
        weight: float = 0.002,
    ) -> None:
        self.statistics, self.num_ws, self.rate, self.weight = statistics, num_ws, rate, weight
        self.u = start.expand(-1, num_ws if plus else 1, -1).clone().requires_grad_()

    def variables(self) -> list[tuple[Tensor, float]]:
        return [(self.u, self.rate)]

    def ws(self) -> Latents:
        return self.statistics.decode(self.u).expand(-1, self.num_ws, -1)

    def strain(self) -> Float[Tensor, " count"]:
        """Under the prior u is standard normal; mean squared u times `weight`."""
        return self.weight * self.u.square().mean(dim=(1, 2))


class AlphaSpace:
    """The dilated hull P_beta of a person's anchors; with `plus` every layer has weights of its own.

    The projector of EG3D spec 5.8.
    """

    def __init__(
        self,
        anchors: Float[Tensor, "anchors num_ws w_dim"],
        start: Float[Tensor, "count anchors"],
        *,
        beta: float | None = 0.03,
        plus: bool = False,
        rate: float = 0.02,
        weight: float = 0.02,
    ) -> None:
        self.anchors, self.beta, self.plus, self.rate, self.weight = anchors, beta, plus, rate, weight
        self.raw = start.clone().requires_grad_()
        self.deltas = torch.zeros(len(start), anchors.shape[1], len(anchors), device=start.device)
        self.deltas.requires_grad_(plus)

    def variables(self) -> list[tuple[Tensor, float]]:
        return [(self.raw, self.rate)] + ([(self.deltas, self.rate / 4)] if self.plus else [])

    def alphas(self) -> Float[Tensor, "count num_ws anchors"]:
        """The weights of every layer: they sum to 1."""
        return layer_alphas(self.raw, self.deltas, self.beta)[1]

    def ws(self) -> Latents:
        return decode(self.alphas(), self.anchors)

    def strain(self) -> Float[Tensor, " count"]:
        constrained, _ = layer_alphas(self.raw, self.deltas, self.beta)
        layers = round(self.anchors.shape[1] * 2 / 3)
        return alpha_penalty(constrained, self.deltas, layers, weight=self.weight)
