"""Train on a window of the picture: rays and super-resolution outside it are not computed.

A window's rays are exactly those of the whole picture, and inside a margin that super-resolution's
filters cannot reach across, so are its pixels (unless the prior puts constant noise there).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.camera_refine import crop_cameras
from my3dgen.lora import Adapter
from my3dgen.prior.generator import Generator
from my3dgen.prior.render import Sampling

MARGIN = 4  # raw pixels: the filters reach over fewer than 3


@dataclass(frozen=True)
class Window:
    """A square of the raw picture, in its pixels."""

    top: int
    left: int
    size: int
    whole: int
    """Side of the whole raw picture."""

    def crop(self, pictures: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch c h w"]:
        """The part of whole pictures (of any resolution) that a rendering of this window shows exactly."""
        scale = pictures.shape[-1] // self.whole
        (top, bottom), (left, right) = self._inside(self.top), self._inside(self.left)
        return pictures[..., top * scale : bottom * scale, left * scale : right * scale]

    def trim(self, pictures: Float[Tensor, "batch c side side"]) -> Float[Tensor, "batch c h w"]:
        """The same part of a rendering of this window."""
        scale = pictures.shape[-1] // self.size
        spans = []
        for start in (self.top, self.left):
            first, last = self._inside(start)
            spans.append(slice((first - start) * scale, (last - start) * scale))
        return pictures[..., spans[0], spans[1]]

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


def render_window(
    generator: Generator,
    ws: Float[Tensor, "batch num_ws w_dim"],
    cameras: Float[Tensor, "batch 25"],
    adapter: Adapter | None,
    window: Window | None,
    samples: int,
) -> tuple[Float[Tensor, "batch 3 h w"], Float[Tensor, "batch 3 raw_h raw_w"]]:
    """(picture, raw picture) of what `window.crop` leaves of whole ones; all of it without a window."""
    planes = generator.planes(ws, adapter)
    sampling = Sampling(samples, samples)
    if window is None:
        whole = generator.render(planes, cameras, ws, adapter, sampling=sampling)
        return whole.image.float(), whole.image_raw.float()
    seen = crop_cameras(cameras, window.top, window.left, window.size, window.whole)
    features = generator.volume(planes, seen, sampling=sampling, resolution=window.size).features
    share = generator.config.superresolution_layout.input_resolution // window.whole
    image = generator.superresolve(features, ws, adapter, resolution=window.size * share)
    return window.trim(image.float()), window.trim(features[:, :3].float())
