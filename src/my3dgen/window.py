"""Train on a window of the picture: rays and super-resolution outside it are not computed.

A window's rays are exactly those of the whole picture, and inside a margin that super-resolution's
filters cannot reach across, so are its pixels (unless the prior puts constant noise there).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.camera_refine import crop_cameras
from my3dgen.prior.adaptation import AdapterLike
from my3dgen.prior.generator import Generator
from my3dgen.prior.render import Sampling

MARGIN = 3  # raw pixels: the filters reach no further

Spans = tuple[tuple[int, int], tuple[int, int]]
"""First and last + 1 of rows and of columns."""


@dataclass(frozen=True)
class Window:
    """A square of the raw picture, in its pixels."""

    top: int
    left: int
    size: int
    whole: int
    """Side of the whole raw picture."""

    @property
    def spans(self) -> Spans:
        """Rows and columns that are exact in a rendering of this window, in its raw pixels."""
        (top, bottom), (left, right) = self._inside(self.top), self._inside(self.left)
        return (top - self.top, bottom - self.top), (left - self.left, right - self.left)

    def cameras(self, cameras: Float[Tensor, "batch 25"]) -> Float[Tensor, "batch 25"]:
        """The cameras of whole pictures as they see this window."""
        return crop_cameras(cameras, self.top, self.left, self.size, self.whole)

    def crop(self, pictures: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch c h w"]:
        """The part of whole pictures (of any resolution) that a rendering of this window shows exactly."""
        scale = pictures.shape[-1] // self.whole
        (top, bottom), (left, right) = self._inside(self.top), self._inside(self.left)
        return pictures[..., top * scale : bottom * scale, left * scale : right * scale]

    def _inside(self, start: int) -> tuple[int, int]:
        """The span without margins, except where it ends at the picture's own border."""
        end = start + self.size
        return start if start == 0 else start + MARGIN, end if end == self.whole else end - MARGIN


def random_window(size: int, whole: int, rng: torch.Generator) -> Window:
    """A window anywhere in the picture; its middle, where the face is, is seen most."""
    top, left = torch.randint(0, whole - size + 1, (2,), generator=rng).tolist()
    return Window(top, left, size, whole)


def fits_windows(generator: Generator) -> bool:
    """Whether this prior's pictures can be rendered window by window."""
    config = generator.config
    return (
        config.superresolution_noise_mode == "none"
        and config.superresolution_layout.input_resolution % config.neural_rendering_resolution == 0
    )


def trim(
    pictures: Float[Tensor, "batch c side side"], size: int, spans: Spans
) -> Float[Tensor, "batch c h w"]:
    """The part that `Window.crop` leaves, of a rendering of a window of `size` raw pixels at any scale."""
    scale = pictures.shape[-1] // size
    rows, columns = (slice(first * scale, end * scale) for first, end in spans)
    return pictures[..., rows, columns]


def render_window(
    generator: Generator,
    ws: Float[Tensor, "batch num_ws w_dim"],
    cameras: Float[Tensor, "batch 25"],
    adapter: AdapterLike | None,
    size: int | None,
    spans: Spans | None,
    samples: int,
) -> tuple[Float[Tensor, "batch 3 h w"], Float[Tensor, "batch 3 raw_h raw_w"]]:
    """(picture, raw picture) of what `Window.crop` leaves of whole ones; all of it without `spans`.

    `cameras` see the window of `size` raw pixels (`Window.cameras`). Where it lies is in nothing else, so all
    windows of the same `spans` can be one captured graph.
    """
    planes = generator.planes(ws, adapter)
    sampling = Sampling(samples, samples)
    if size is None or spans is None:
        whole = generator.render(planes, cameras, ws, adapter, sampling=sampling)
        return whole.image.float(), whole.image_raw.float()
    features = generator.volume(planes, cameras, sampling=sampling, resolution=size).features
    config = generator.config
    share = config.superresolution_layout.input_resolution // config.neural_rendering_resolution
    image = generator.superresolve(features, ws, adapter, resolution=size * share)
    return trim(image.float(), size, spans), trim(features[:, :3].float(), size, spans)
