"""A low-rank change of a weight, shared by the batch or one per image."""

from dataclasses import dataclass

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
        return self.scale * (self.B @ self.A)

    def linear(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """`x @ change.T` without forming the change."""
        if not self.batched:
            return self.scale * ((x @ self.A.mT) @ self.B.mT)
        return self.scale * ((x[:, None] @ self.A.mT) @ self.B.mT)[:, 0]
