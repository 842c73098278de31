"""How well an encoder reproduces held-out faces of its prior: figures, and a sheet to look at."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.apps.sheet import save_image, sheet, to_image
from my3dgen.evaluate.metrics import psnr
from my3dgen.pretrain.augment import Imaging, photographed
from my3dgen.pretrain.samples import AT_ONCE, Samples, draw_samples, image, numbers, reduced
from my3dgen.prior.encoder import Encoder
from my3dgen.prior.generator import Generator

SHOWN = 8
"""Faces on a sheet."""


@dataclass(frozen=True)
class HeldOut:
    """Faces that no training sees, and photos of their first view."""

    samples: Samples
    photos: Float[Tensor, "face 3 side side"]


def hold_out(generator: Generator, count: int, side: int, seed: int) -> HeldOut:
    """Unmixed faces, always the same ones for a seed."""
    samples = draw_samples(generator, count, side, numbers("cpu", "held out", seed))
    cover, rng = samples.alpha[:, 0].float() / 255, numbers(generator.w_avg.device, "photos", seed)
    photos, _ = photographed(image(samples.images[:, 0]), cover, Imaging(), rng)
    return HeldOut(samples, photos)


@dataclass(frozen=True)
class Reproduction:
    """Held-out faces as an encoder tells them from the photos, from W and from W+.

    Figures are decibels over the head's pixels, or over the whole picture if the prior paints a background.
    """

    in_w: Float[Tensor, "face view 3 side side"]
    in_w_db: Float[Tensor, "face view"]
    in_w_plus_db: Float[Tensor, "face view"]

    @staticmethod
    @torch.no_grad()
    def of(
        generator: Generator, held: HeldOut, encoder: Encoder | None, mean: Float[Tensor, " w_dim"]
    ) -> "Reproduction":
        """What an encoder sees; without one every face is the `mean` latent."""
        samples, count = held.samples, len(held.photos)
        if encoder is None:
            pictures = _pictures(generator, mean.expand(count, generator.config.num_ws, -1), samples)
            decibels = _decibels(pictures, samples)
            return Reproduction(pictures, decibels, decibels)
        seen = [encoder.encode(some) for some in held.photos.split(AT_ONCE)]
        plus = torch.cat([one.ws for one in seen])
        flat = torch.cat([one.w for one in seen])[:, None].expand_as(plus)
        pictures = _pictures(generator, flat, samples)
        in_plus = _decibels(_pictures(generator, plus, samples), samples)
        return Reproduction(pictures, _decibels(pictures, samples), in_plus)

    @property
    def decibels(self) -> float:
        """The figure that encoders are compared by: in W, where inversion starts, over both views."""
        return float(self.in_w_db.mean())

    def figures(self) -> dict[str, float]:
        """The photo's view and the other, in W and in W+."""
        named = {"same": self.in_w_db[:, 0], "other": self.in_w_db[:, 1]}
        named |= {"same_w_plus": self.in_w_plus_db[:, 0], "other_w_plus": self.in_w_plus_db[:, 1]}
        return {name: float(values.mean()) for name, values in named.items()}


def _pictures(generator: Generator, ws: Tensor, samples: Samples) -> Float[Tensor, "face view 3 side side"]:
    side, parts = samples.images.shape[-1], []
    for some, cameras in zip(ws.split(AT_ONCE), samples.cameras.split(AT_ONCE), strict=True):
        planes = generator.planes(some)
        views = [generator.render(planes, view, some).image.clamp(-1, 1) for view in cameras.unbind(1)]
        parts.append(torch.stack([reduced(view, side) for view in views], 1))
    return torch.cat(parts)


def _decibels(pictures: Tensor, samples: Samples) -> Float[Tensor, "face view"]:
    truth, head = image(samples.images).flatten(0, 1), (samples.alpha > 127).flatten(0, 1)
    mask = (head | ~head.any(-1, keepdim=True).any(-2, keepdim=True)).float()  # all, where there is no head
    return psnr(pictures.flatten(0, 1), truth, mask).view(pictures.shape[:2])


def draw(held: HeldOut, before: Reproduction, now: Reproduction, path: Path) -> None:
    """A sheet: each face and its photo, then both views as encoded before and now."""
    truth = image(held.samples.images)
    rows = {
        "face": truth[:, 0],
        "photo": held.photos,
        "before": before.in_w[:, 0],
        "encoded": now.in_w[:, 0],
        "other view": truth[:, 1],
        "before ": before.in_w[:, 1],
        "encoded ": now.in_w[:, 1],
    }
    pictures = [to_image(one) for row in rows.values() for one in row[:SHOWN].cpu()]
    columns = len(pictures) // len(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(sheet(pictures, columns=columns, row_titles=[name.strip() for name in rows], cell=160), path)
