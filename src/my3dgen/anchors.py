"""A person's own latents, one a photo: what alpha-space is spanned by."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Anchors:
    """Inverted photos. In W all vectors of an anchor are equal, in W+ they differ."""

    ws: Float[Tensor, "anchors num_ws w_dim"]
    """Latents of the photos."""
    cameras: Float[Tensor, "anchors 25"]
    """Cameras of the photos."""
    names: tuple[str, ...] | None = None
    """Names of the photos, for messages while working; person files leave them out by default."""

    def __len__(self) -> int:
        return len(self.ws)
