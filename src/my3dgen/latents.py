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

from my3dgen.alpha import decode

if TYPE_CHECKING:
    from my3dgen.prior.generator import Generator

OFFSET_RATE = 1 / 3  # of a layer's own weights, to the rate of those that all layers share

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
    w = generator.mapping(z, generator.cameras().expand(count, -1))[:, 0]
    values, axes = torch.linalg.eigh(torch.cov(w.double().T))
    return LatentStatistics(w.mean(0), (axes * values.clamp_min(0).sqrt()).float())


@runtime_checkable
class LatentSpace(Protocol):
    """See the module's docstring. `variables` are leaves, each with its own learning rate."""

    def variables(self) -> list[tuple[Tensor, float]]:
        """Leaves and their learning rates."""
        ...

    def ws(self) -> Latents:
        """The latents, differentiable."""
        ...

    def strain(self) -> Float[Tensor, " count"]:
        """A small penalty for unlikely latents."""
        ...


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
        weight: float = 0.02,
    ) -> None:
        self.statistics, self.num_ws, self.rate, self.weight = statistics, num_ws, rate, weight
        self.u = start.expand(-1, num_ws if plus else 1, -1).clone().requires_grad_()

    def variables(self) -> list[tuple[Tensor, float]]:
        """Coordinates in units of the prior's spread."""
        return [(self.u, self.rate)]

    def ws(self) -> Latents:
        """Latents of the coordinates."""
        return self.statistics.decode(self.u).expand(-1, self.num_ws, -1)

    def strain(self) -> Float[Tensor, " count"]:
        """Under the prior u is standard normal; mean squared u times `weight`."""
        return self.weight * self.u.square().mean(dim=(1, 2))


class AlphaSpace:
    """The affine hull of a person's anchors, in units of their spread along its principal axes; with `plus`
    every layer has weights of its own, an offset from those that all share (alpha+).

    The projector of EG3D spec 5.8 moves the anchors' weights themselves. But Adam moves all that it is
    given equally far, and many small weights so moved are another mixture at every step; along principal
    axes equal steps are equally likely ones. How far a point may leave the hull is up to the caller:
    `my3dgen.alpha.project` brings it back, exactly, where the spec's soft bound keeps weights for good
    that once strayed behind it. What holds a search back meanwhile is the pull to the anchors' mean: without
    it longer searches meet the photo a little better and its other sides worse. Sums are 1 by construction,
    so the spec's penalty on them is not needed. That on the offsets is kept, the length of each layer's own:
    a layer departs only for what it gains.
    """

    def __init__(
        self,
        anchors: Float[Tensor, "anchors num_ws w_dim"],
        start: Float[Tensor, "count anchors"] | Float[Tensor, "count num_ws anchors"],
        *,
        plus: bool = False,
        rate: float = 0.15,
        weight: float = 0.02,
        offset_weight: float = 0.01,
    ) -> None:
        self.anchors, self.rate, self.weight, self.offset_weight = anchors, rate, weight, offset_weight
        self.start = start if start.dim() == 3 else start[:, None]
        self.axes = principal_axes(anchors)
        shape = len(start), 1, len(self.axes)
        self.moved = torch.zeros(shape, device=start.device, requires_grad=True)
        own = (len(start), anchors.shape[1] if plus else 0, len(self.axes))
        self.offsets = torch.zeros(own, device=start.device, requires_grad=plus)
        self.apart = (self.start - self.start.mean(1, keepdim=True)) @ self.axes.T * (len(anchors) - 1)

    def variables(self) -> list[tuple[Tensor, float]]:
        """Coordinates along the axes, relative to the start: all layers' and, in alpha+, each layer's own."""
        return [
            (self.moved, self.rate),
            *([(self.offsets, self.rate * OFFSET_RATE)] if self.offsets.numel() else []),
        ]

    def steps(self) -> Float[Tensor, "count rows axes"]:
        """How far each layer has gone from the start."""
        return self.moved + self.offsets if self.offsets.numel() else self.moved

    def alphas(self) -> Float[Tensor, "count num_ws anchors"]:
        """The weights of every layer: they sum to 1, as those of the start do."""
        return (self.start + self.steps() @ self.axes).expand(-1, self.anchors.shape[1], -1)

    def ws(self) -> Latents:
        """Latents of the weights."""
        return decode(self.alphas(), self.anchors)

    def strain(self) -> Float[Tensor, " count"]:
        """Mean squared distance from the anchors' mean, in units of their spread, times `weight`, and the
        mean length of the layers' offsets times `offset_weight`."""
        count = len(self.anchors)
        away = (self.start - 1 / count) @ self.axes.T * (count - 1) + self.steps()
        strain = self.weight * away.square().sum(dim=2).mean(dim=1) / max(1, len(self.axes))
        if self.offsets.numel():
            lengths = ((self.apart + self.offsets).square().sum(dim=2) + 1e-12).sqrt()  # with a gradient at 0
            strain = strain + self.offset_weight * lengths.mean(dim=1)
        return strain


def principal_axes(anchors: Float[Tensor, "anchors num_ws w_dim"]) -> Float[Tensor, "axes anchors"]:
    """Changes of the anchors' weights, summing to 0, that each move the latent by one standard deviation
    of the anchors along one of their principal axes."""
    rows = anchors.flatten(1).double()
    directions, lengths, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    some = lengths > 1e-6 * lengths.max().clamp_min(1e-30)
    return (directions[:, some].T / max(1, len(rows) - 1) ** 0.5).to(anchors.dtype)
