"""What happens to a face before an encoder sees it: framed a little off, photographed, cut out.

Rendered sources lack all of that; an encoder that has seen only them errs on photographs. All of it runs on
the images' device, on whole batches.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.synthetic.imaging import blur


@dataclass(frozen=True)
class Imaging:
    """How far pictures are changed; spreads are standard deviations."""

    share: float = 0.75
    """Share of pictures that are changed at all."""
    roll: float = 0.03
    """Turn, radians."""
    zoom: float = 0.03
    """Log of the enlargement."""
    shift: float = 0.012
    """Move, image widths."""
    blur: float = 1.2
    """Largest sigma of the blur, pixels at 256; its square is uniform."""
    noise: float = 0.02
    """Largest deviation of the noise, of a range of 1."""
    light: float = 0.02
    """Gain of each colour, and of all."""
    edge: float = 0.15
    """How far the threshold of a cut-out moves from 0.5."""


def photographed(
    images: Float[Tensor, "batch 3 size size"],
    alpha: Float[Tensor, "batch 1 size size"],
    imaging: Imaging,
    rng: torch.Generator,
) -> tuple[Float[Tensor, "batch 3 size size"], Float[Tensor, "batch 4"]]:
    """Pictures in [-1, 1] on white as a photo's crop would show them, and how each was framed.

    The framing (roll, zoom, shift) is that of `cameras.frame`; zeros where the picture was left alone.
    """
    count, device = len(images), images.device
    uniform = torch.rand(count, 5, generator=rng, device=device)
    normal = torch.randn(count, 8, generator=rng, device=device).clamp(-2.5, 2.5)
    changed = (uniform[:, :1] < imaging.share).to(images)
    spread = images.new_tensor([imaging.roll, imaging.zoom, imaging.shift, imaging.shift])
    framing = normal[:, :4] * spread * changed

    person = torch.cat([(images - 1) / 2, alpha], 1)  # white is zero
    person = _moved(person, framing)
    person, cover = person[:, :3], person[:, 3:]
    shape = (-1, 1, 1, 1)
    on = changed.view(shape)
    threshold = 0.5 + imaging.edge * (2 * uniform[:, 1].view(shape) - 1)
    harder = ((cover - threshold) * 2 + 0.5).clamp(0, 1)
    kept = torch.lerp(torch.ones_like(cover), harder / cover.clamp_min(1e-3), on).clamp(0, 1)
    cover = cover * kept
    gain = 1 + imaging.light * on * (normal[:, 4:7].view(-1, 3, 1, 1) * 0.5 + normal[:, 7].view(shape))
    # person holds (colour - 1) * cover: brighten the colour, not the distance from white
    person = (person * kept + cover) * gain - cover
    grain = torch.randn(person.shape, generator=rng, device=device)
    person = person + cover * grain * (imaging.noise * on * uniform[:, 2].view(shape))
    sigma = imaging.blur * images.shape[-1] / 256 * uniform[:, 3].sqrt() * changed[:, 0]
    person = blur(person, sigma, reach=3)
    return (2 * (person + 1) - 1).clamp(-1, 1), framing


def _moved(images: Tensor, framing: Float[Tensor, "batch 4"]) -> Tensor:
    """Images turned, enlarged and moved; outside, their edge goes on."""
    roll, zoom, right, down = framing.unbind(1)
    cos, sin, shrink = roll.cos(), roll.sin(), (-zoom).exp()
    # where each pixel comes from: moved back, then shrunk and turned back about the middle
    rows = [[cos * shrink, sin * shrink], [-sin * shrink, cos * shrink]]
    matrix = torch.stack([torch.stack(row, 1) for row in rows], 1)
    offset = -(matrix @ torch.stack([right, down], 1)[:, :, None]) * 2
    grid = F.affine_grid(torch.cat([matrix, offset], 2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
