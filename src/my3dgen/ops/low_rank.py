"""A low-rank change of a weight, shared by the batch or one per image."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """The change `scale * B @ A` of a weight flattened to (out, in * taps).

    Both factors may carry one leading batch axis, one entry per image.
    """

    A: Float[Tensor, "*batch inner inputs"]
    B: Float[Tensor, "*batch outputs inner"]
    scale: float

    @property
    def batched(self) -> bool:
        """Whether every image has its own factors."""
        return self.A.ndim == 3

    def product(self) -> Float[Tensor, "*batch outputs inputs"]:
        """The change itself."""
        return (self.B * self.scale) @ self.A

    def added(
        self, y: Float[Tensor, "some_batch outputs"], x: Float[Tensor, "some_batch inputs"]
    ) -> Float[Tensor, "batch outputs"]:
        """`y + x @ change.T` without forming the change."""
        if not self.batched:
            return torch.addmm(y, x @ self.A.mT, self.B.mT, alpha=self.scale)
        few = self.A @ x[:, :, None]
        return torch.baddbmm(y[:, :, None], self.B.expand(len(few), -1, -1), few, alpha=self.scale)[..., 0]
