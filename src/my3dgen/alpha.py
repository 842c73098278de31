"""Alpha-space: points of a person's own latent region, as weights on that person's anchors.

A latent is w = sum_k alpha_k a_k with anchors a_k and sum_k alpha_k = 1. P_0, the convex hull of
the anchors, is alpha >= 0; P_beta, the dilated hull, is alpha >= -beta. In W+ (alpha+) every style
layer may have weights of its own. Source: MyStyle (arXiv 2203.17272); EG3D spec 5.8.

Everywhere: `ws` of the anchors is "anchors num_ws w_dim"; alphas are "batch anchors" (one set of
weights for all layers) or "batch num_ws anchors".
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Alphas = Float[Tensor, "batch anchors"] | Float[Tensor, "batch num_ws anchors"]


def sample_alphas(
    count: int,
    anchors: int,
    rng: torch.Generator,
    *,
    support: int | None = 3,
    weights: Literal["uniform", "dirichlet"] = "uniform",
) -> Float[Tensor, "batch anchors"]:
    """`count` random points of the convex hull of `anchors` anchors; rows are >= 0 and sum to 1.

    `support` anchors are chosen without replacement for each point (None: all of them). `uniform`
    is MyStyle's rule, uniforms divided by their sum, which avoids the corners; `dirichlet` is flat
    over the simplex. The same `rng` state gives the same points.
    """
    chosen = anchors if support is None else min(support, anchors)
    order = torch.rand(count, anchors, generator=rng).argsort(dim=1)[:, :chosen]
    raw = torch.rand(count, chosen, generator=rng).clamp_min(1e-6)
    if weights == "dirichlet":
        raw = -raw.log() + 1e-12  # exponentials divided by their sum are Dirichlet(1, ..., 1)
    return torch.zeros(count, anchors).scatter_(1, order, raw / raw.sum(dim=1, keepdim=True))


def decode(alphas: Alphas, ws: Float[Tensor, "anchors num_ws w_dim"]) -> Float[Tensor, "batch num_ws w_dim"]:
    """The latents of barycentric weights, W+ whenever the anchors or the weights are."""
    if alphas.dim() == 2:
        return torch.einsum("bk,kld->bld", alphas, ws)
    return torch.einsum("blk,kld->bld", alphas, ws)


def outside(alphas: Alphas, beta: float) -> Float[Tensor, " batch"]:
    """How far the lowest weight of each point lies below -beta; 0 inside the dilated hull."""
    return (-beta - alphas.flatten(1).amin(dim=1)).clamp_min(0)


@dataclass(frozen=True, eq=False)
class Stray:
    """How far points lie outside the dilated hull; 0 within it."""

    weight: Float[Tensor, " batch"]
    """How far the lowest weight lies below -beta."""
    distance: Float[Tensor, " batch"]
    """|w - nearest point of the hull|, relative to the `spread` of the anchors."""


def stray(alphas: Alphas, ws: Float[Tensor, "anchors num_ws w_dim"], beta: float) -> Stray:
    """How far weights that sum to 1 have strayed from P_beta, in weight and in latent space.

    Weights "batch num_ws anchors" are measured layer by layer, as alpha+ has it. Not differentiable.
    """
    latents, per_layer = decode(alphas, ws), alphas.dim() == 3
    nearest = decode(project(latents, ws, beta, per_layer=per_layer), ws)
    away = (latents - nearest).flatten(1).norm(dim=1) / spread(ws).clamp_min(1e-12)
    weight = outside(alphas, beta)
    return Stray(weight, torch.where(weight > 0, away, 0))


def spread(ws: Float[Tensor, "anchors num_ws w_dim"]) -> Float[Tensor, ""]:
    """Root mean square distance of the anchors from their mean, over all layers."""
    return (ws - ws.mean(dim=0)).flatten(1).square().sum(dim=1).mean().sqrt()


def edit_alphas(
    direction: Float[Tensor, " w_dim"] | Float[Tensor, "num_ws w_dim"],
    ws: Float[Tensor, "anchors num_ws w_dim"],
    *,
    keep_sum: bool = True,
) -> Float[Tensor, " anchors"]:
    """gamma: the weights whose combination of anchors is nearest to a latent direction.

    alpha(theta) = alpha + theta * gamma. With `keep_sum` gamma sums to 0, so an edit stays among
    points whose weights sum to 1; without, it is MyStyle's (A A^T)^-1 A d.
    """
    rows = ws.flatten(1).double()
    if keep_sum:
        rows = rows - rows.mean(dim=0)
    target = direction.expand(ws.shape[1:]).reshape(-1).double()
    # the pseudo-inverse also answers for anchors that repeat each other; centred rows make it sum to 0
    return (torch.linalg.pinv(rows.T, rtol=1e-7) @ target).to(ws.dtype)


def project(
    latents: Float[Tensor, "batch num_ws w_dim"],
    ws: Float[Tensor, "anchors num_ws w_dim"],
    beta: float,
    *,
    per_layer: bool = False,
) -> Alphas:
    """The weights in P_beta whose latents are nearest: min |alpha A - w|^2, sum 1, alpha >= -beta.

    With `per_layer` each style layer is a problem of its own ("batch num_ws anchors"), else all
    share their weights ("batch anchors"). Not differentiable.
    """
    if not per_layer:
        system = ws.flatten(1).double().cpu()
        found = [nearest_weights(system, latent.flatten().double().cpu(), beta) for latent in latents]
        return torch.stack(found).to(ws)
    found = [
        [nearest_weights(ws[:, k].double().cpu(), latent[k].double().cpu(), beta) for k in range(ws.shape[1])]
        for latent in latents
    ]
    return torch.stack([torch.stack(rows) for rows in found]).to(ws)


def nearest_weights(
    anchors: Float[Tensor, "anchors dim"], target: Float[Tensor, " dim"], beta: float
) -> Float[Tensor, " anchors"]:
    """One quadratic programme of `project`, by non-negative least squares in u = alpha + beta."""
    from scipy.optimize import nnls

    count = len(anchors)
    total = 1 + count * beta
    # move the origin to the target, since weights sum to 1: |sum alpha (a - w)| is what is minimised
    offsets = anchors - target
    scale = offsets.norm(dim=1).max().clamp_min(1e-12)
    offsets = offsets / scale
    factor = torch.linalg.qr(offsets.T, mode="r").R if offsets.shape[1] > count else offsets.T
    constant = beta * factor.sum(dim=1)
    # the equation sum u = total enters as one heavy row and is then met exactly by rescaling
    heavy = 1e4 * math.sqrt(count)
    system = torch.cat([factor, torch.full((1, count), heavy, dtype=factor.dtype)])
    right = torch.cat([constant, torch.tensor([heavy * total], dtype=factor.dtype)])
    solution = torch.from_numpy(nnls(system.numpy(), right.numpy(), maxiter=100 * count)[0])
    return solution * (total / solution.sum()) - beta
