"""Kernel Inception Distance (Binkowski et al. 2018): how far apart two sets of pictures are, from features.

The squared maximum mean discrepancy with the kernel (x.y / channels + 1)^3, without bias: two samples of
one distribution score 0 on average, so small negative values are no mistake. Values depend on the feature
network and compare only with values made with the same.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SUBSETS = 100
SUBSET_SIZE = 500


@dataclass(frozen=True)
class Kid:
    """A distance and how much it moves from subset to subset."""

    mean: float
    deviation: float


def kid(
    first: Float[Tensor, "first channels"],
    second: Float[Tensor, "second channels"],
    *,
    subsets: int = SUBSETS,
    size: int = SUBSET_SIZE,
    seed: int = 0,
) -> Kid:
    """The mean over `subsets` random subsets of `size` rows of each set, drawn without replacement.

    Sets smaller than `size` make smaller subsets. Raises ValueError for a set of fewer than two rows.
    """
    size = min(size, len(first), len(second))
    if size < 2:
        raise ValueError("the distance of sets needs at least two pictures in each")
    rng = torch.Generator().manual_seed(seed)
    first, second = first.double(), second.double()
    values = []
    for _ in range(subsets):
        some, others = (
            rows[torch.randperm(len(rows), generator=rng)[:size].to(rows.device)] for rows in (first, second)
        )
        values.append(squared_mmd(some, others))
    found = torch.stack(values)
    return Kid(float(found.mean()), float(found.std(correction=0)))


def squared_mmd(
    first: Float[Tensor, "first channels"], second: Float[Tensor, "second channels"]
) -> Float[Tensor, ""]:
    """The unbiased estimate from all pairs of different rows."""
    within = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in map(_gram, (first, second))]
    return within[0] + within[1] - 2 * _gram(first, second).mean()


def _gram(first: Tensor, second: Tensor | None = None) -> Tensor:
    second = first if second is None else second
    return (first @ second.T / first.shape[1] + 1) ** 3
