"""What a training step compares, and how far renderings are from photos.

Choosing and gathering happen before, in `Compared`; what `differences` then does is the same work for all
batches of one kind, so that it can be captured as a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from my3dgen.losses import absolute_error, gradient_error, squared_error
from my3dgen.perceptual import Perceptual
from my3dgen.precision import mixed_precision
from my3dgen.prior.adaptation import AdapterLike
from my3dgen.prior.generator import Generator
from my3dgen.targets import Targets
from my3dgen.window import Spans, fits_windows, random_window, render_window

if TYPE_CHECKING:
    from my3dgen.tune import TuneConfig

PERCEPTUAL_SIDE = 96  # smaller pictures are enlarged for the perceptual network


@dataclass(frozen=True, eq=False)
class Compared:
    """Latents, cameras (of a window, if there is one) and what their renderings should be."""

    ws: Float[Tensor, "batch num_ws w_dim"]
    cameras: Float[Tensor, "batch 25"]
    photos: Float[Tensor, "batch 3 height width"]
    weights: Float[Tensor, "batch 1 height width"]
    raw_photos: Float[Tensor, "batch 3 raw_height raw_width"]
    raw_weights: Float[Tensor, "batch 1 raw_height raw_width"]

    def detached(self) -> Compared:
        """The same without the latents' past."""
        return replace(self, ws=self.ws.detach())


def compared(
    generator: Generator,
    targets: Targets,
    latents: Callable[[Tensor], Float[Tensor, "batch num_ws w_dim"]],
    config: TuneConfig,
    step: int,
    numbers: Tensor,
) -> tuple[Spans | None, Compared]:
    """What a numbered step compares of the photos numbered, and what part of a window shows it exactly.

    The step decides the window. None means whole pictures.
    """
    rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    side = generator.config.neural_rendering_resolution
    cameras, pictures = targets.cameras, [*targets.at(generator.config.img_resolution), *targets.at(side)]
    spans = None
    if config.window is not None and config.window < side and fits_windows(generator):
        window = random_window(config.window, side, rng)
        spans, cameras, pictures = window.spans, window.cameras(cameras), [window.crop(x) for x in pictures]
    return spans, Compared(latents(numbers), *(rows(x, numbers) for x in (cameras, *pictures)))


def differences(
    generator: Generator,
    adapter: AdapterLike | None,
    compared: Compared,
    spans: Spans | None,
    config: TuneConfig,
    perceptual: Perceptual | None,
) -> Float[Tensor, " batch"]:
    """The loss of every photo. Nothing here waits for the device or comes from the host."""
    with mixed_precision(compared.ws.device):
        image, raw = render_window(
            generator, compared.ws, compared.cameras, adapter, config.window, spans, config.samples
        )
    loss = image.new_zeros(len(image))
    for made, photos, weights in (
        (image, compared.photos, compared.weights),
        (raw, compared.raw_photos, compared.raw_weights),
    ):
        loss = loss + squared_error(made, photos, weights)
        if config.plain > 0:
            plain = absolute_error(made, photos, weights) + gradient_error(made, photos, weights)
            loss = loss + config.plain * plain
        if perceptual is not None and config.perceptual > 0:
            loss = loss + config.perceptual * _perceptual_distance(perceptual, made, photos)
    return loss


def rows(tensor: Tensor, numbers: Tensor) -> Tensor:
    """Rows by their numbers, which are on the CPU. Nothing waits for a GPU: the numbers are sent to it, too."""
    return tensor.index_select(0, numbers.to(tensor.device, non_blocking=True))


def _perceptual_distance(perceptual: Perceptual, made: Tensor, photos: Tensor) -> Float[Tensor, " batch"]:
    """Small pictures are enlarged first: the network halves what it gets five times."""
    scale = -(-PERCEPTUAL_SIDE // min(made.shape[-2:]))
    if scale > 1:
        made, photos = (F.interpolate(x, scale_factor=scale, mode="bilinear") for x in (made, photos))
    with torch.no_grad():
        theirs = perceptual.features(photos)
    return perceptual.distance(perceptual.features(made), theirs)
