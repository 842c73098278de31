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
from jaxtyping import Float, Int
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
MOST_KEPT = 4 << 30  # bytes of photos' features that a GPU keeps
AT_ONCE = 8  # photos whose features are computed together

Kept = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Features of all photos, and of the raw ones; none where they are not kept."""


@dataclass(frozen=True, eq=False)
class Compared:
    """Latents, cameras (of a window, if there is one) and what their renderings should be."""

    ws: Float[Tensor, "batch num_ws w_dim"]
    cameras: Float[Tensor, "batch 25"]
    photos: Float[Tensor, "batch 3 height width"]
    weights: Float[Tensor, "batch 1 height width"]
    raw_photos: Float[Tensor, "batch 3 raw_height raw_width"]
    raw_weights: Float[Tensor, "batch 1 raw_height raw_width"]
    numbers: Int[Tensor, " batch"]
    """Of the photos."""

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
    seen, photos, weights, raw_photos, raw_weights = (rows(x, numbers) for x in (cameras, *pictures))
    where = numbers.to(seen.device, non_blocking=True)
    return spans, Compared(latents(numbers), seen, photos, weights, raw_photos, raw_weights, where)


@torch.no_grad()
def kept_features(
    generator: Generator, targets: Targets, config: TuneConfig, perceptual: Perceptual | None
) -> Kept:
    """Features of all photos, and of the raw ones, for the perceptual network; none on a CPU, where memory
    is scarce, nor of windows, nor where they would fill a GPU."""
    side = generator.config.neural_rendering_resolution
    windows = config.window is not None and config.window < side and fits_windows(generator)
    if perceptual is None or config.perceptual <= 0 or windows or not _keeps(targets):
        return (), ()
    kept = []
    for size in (generator.config.img_resolution, side):
        photos = _enlarged(targets.at(size)[0])
        first = perceptual.features(photos[:1])
        if sum(x.numel() * x.element_size() for x in first) * len(photos) > MOST_KEPT:
            return (), ()
        whole = tuple(_room_like(x, len(photos)) for x in first)
        for start in range(0, len(photos), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            for room, found in zip(whole, perceptual.features(photos[some]), strict=True):
                room[some] = found
        kept.append(whole)
    return kept[0], kept[1]


def _room_like(x: Tensor, count: int) -> Tensor:
    """Room for as many maps like those of `x`, channels-last."""
    size = (count, *x.shape[1:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _keeps(targets: Targets) -> bool:
    """Whether there is memory for features where the photos are."""
    return targets.images.is_cuda


def differences(
    generator: Generator,
    adapter: AdapterLike | None,
    compared: Compared,
    spans: Spans | None,
    config: TuneConfig,
    perceptual: Perceptual | None,
    kept: Kept = ((), ()),
) -> Float[Tensor, " batch"]:
    """The loss of every photo; `kept` is what `kept_features` returned, of which nothing is copied.

    Nothing here waits for the device or comes from the host.
    """
    with mixed_precision(compared.ws.device):
        image, raw = render_window(
            generator, compared.ws, compared.cameras, adapter, config.window, spans, config.samples
        )
    loss = image.new_zeros(len(image))
    for made, photos, weights, features in (
        (image, compared.photos, compared.weights, kept[0]),
        (raw, compared.raw_photos, compared.raw_weights, kept[1]),
    ):
        loss = loss + squared_error(made, photos, weights)
        if config.plain > 0:
            plain = absolute_error(made, photos, weights) + gradient_error(made, photos, weights)
            loss = loss + config.plain * plain
        if perceptual is not None and config.perceptual > 0:
            seen = perceptual.features(_enlarged(made))
            if features:
                distance = perceptual.distance(seen, features, compared.numbers)
            else:
                with torch.no_grad():
                    features = perceptual.features(_enlarged(photos))
                distance = perceptual.distance(seen, features)
            loss = loss + config.perceptual * distance
    return loss


def rows(tensor: Tensor, numbers: Tensor) -> Tensor:
    """Rows by their numbers, which are on the CPU; a GPU is sent them and not waited for.

    Pictures keep their order in memory.
    """
    numbers = numbers.to(tensor.device, non_blocking=True)
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.permute(0, 2, 3, 1).index_select(0, numbers).permute(0, 3, 1, 2)
    return tensor.index_select(0, numbers)


def _enlarged(pictures: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 h w"]:
    """Small pictures are enlarged first: the network halves what it gets five times."""
    scale = -(-PERCEPTUAL_SIDE // min(pictures.shape[-2:]))
    return F.interpolate(pictures, scale_factor=scale, mode="bilinear") if scale > 1 else pictures
