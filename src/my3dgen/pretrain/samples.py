"""A frozen prior's own faces as lessons for its encoder: latents, cameras and pictures, kept on the device.

Rendering is the slow part, so every sample is kept for a while and drawn several times, each time
photographed anew. Samples come in chunks whose number alone says what is in them, so that a training that
goes on renders again what it had.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from my3dgen.checkpoint import fingerprint
from my3dgen.pretrain.augment import Imaging, photographed
from my3dgen.pretrain.pool import draw_cameras
from my3dgen.prior.encoder import pose_of_camera
from my3dgen.prior.generator import Generator
from my3dgen.progress import track

VIEWS = 2
AT_ONCE = 8
"""Samples rendered at once."""


@dataclass(frozen=True)
class Samples:
    """Faces of a prior, each from two sides, as bytes."""

    ws: Float[Tensor, "sample num_ws w_dim"]
    cameras: Float[Tensor, "sample view 25"]
    images: UInt8[Tensor, "sample view 3 side side"]
    """0 to 255 for [-1, 1]."""
    alpha: UInt8[Tensor, "sample view 1 side side"]
    """Coverage; full everywhere if the prior paints a background."""


@dataclass(frozen=True)
class Lesson:
    """What one step learns from. The first `some` of the batch are rendered, too."""

    photo: Float[Tensor, "batch 3 side side"]
    """In [-1, 1], see `augment`."""
    pose: Float[Tensor, "batch 6"]
    """Where the photo was taken from, see `encoder.POSE_UNITS`."""
    ws: Float[Tensor, "batch num_ws w_dim"]
    target: Float[Tensor, "some 3 side side"]
    """The same faces, from the photo's side or the other."""
    camera: Float[Tensor, "some 25"]


def seed_of(*about: str | int) -> int:
    """A seed of its own for whatever `about` names."""
    return int(fingerprint(*about)[:15], 16)


def numbers(device: torch.device | str, *about: str | int) -> torch.Generator:
    """Random numbers of their own for whatever `about` names."""
    return torch.Generator(device).manual_seed(seed_of(*about))


def reduced(
    images: Float[Tensor, "batch channels size size"], side: int
) -> Float[Tensor, "batch channels side side"]:
    """Pictures at the size an encoder looks at, made as it makes them."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def draw_latents(
    generator: Generator, count: int, rng: torch.Generator, *, mixed: float = 0.0
) -> Float[Tensor, "count num_ws w_dim"]:
    """Latents of the prior at full variety; a share `mixed` changes to another face's at some layer.

    `rng` is on the CPU, so that every device draws the same.
    """
    config, layers = generator.config, generator.config.num_ws
    z = torch.randn(2 * count, config.z_dim, generator=rng)
    device = generator.w_avg.device
    one, other = generator.mapping(z.to(device), generator.cameras().expand(len(z), -1)).chunk(2)
    change = torch.randint(1, layers, (count, 1), generator=rng)
    change = torch.where(torch.rand(count, 1, generator=rng) < mixed, change, layers)
    ours = torch.arange(layers) < change
    return torch.where(ours[:, :, None].to(device), one, other)


@torch.no_grad()
def draw_samples(
    generator: Generator,
    count: int,
    side: int,
    rng: torch.Generator,
    *,
    dtype: torch.dtype = torch.float32,
    mixed: float = 0.0,
) -> Samples:
    """`count` faces of the prior from two random sides each, at `side` pixels."""
    config, device = generator.config, generator.w_avg.device
    ws = draw_latents(generator, count, rng, mixed=mixed)
    cameras = draw_cameras(
        count, VIEWS, rng, radius=config.camera_radius, pivot=config.camera_pivot, focal=config.focal
    ).to(device)
    images, alpha = [], []
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        for some, theirs in zip(ws.split(AT_ONCE), cameras.split(AT_ONCE), strict=True):
            planes = generator.planes(some)
            for view in theirs.unbind(1):
                rendered = generator.render(planes, view, some)
                images.append(reduced(rendered.image.float().clamp(-1, 1), side))
                cover = F.interpolate(rendered.opacity.float(), size=(side, side), mode="bilinear")
                alpha.append(cover if config.white_back else torch.ones_like(cover))
    shaped = lambda parts: torch.cat(_by_sample(parts))  # noqa: E731
    return Samples(ws, cameras, _bytes(shaped(images) / 2 + 0.5), _bytes(shaped(alpha)))


def _by_sample(parts: list[Tensor]) -> list[Tensor]:
    """Pictures listed view by view, as "sample view ..."."""
    return [torch.stack(parts[i : i + VIEWS], 1) for i in range(0, len(parts), VIEWS)]


def _bytes(values: Tensor) -> Tensor:
    return (values * 255).round().clamp(0, 255).byte()


def image(stored: UInt8[Tensor, "*shape 3 side side"]) -> Float[Tensor, "*shape 3 side side"]:
    """Stored pictures in [-1, 1]."""
    return stored.float() / 127.5 - 1


class SamplePool:
    """The latest samples of a prior, replaced chunk by chunk."""

    def __init__(
        self,
        generator: Generator,
        side: int,
        *,
        capacity: int,
        chunk: int,
        mixed: float,
        seed: int,
        dtype: torch.dtype,
    ):
        self.generator, self.side, self.chunk, self.mixed = generator, side, chunk, mixed
        self.seed, self.dtype, self.slots = seed, dtype, max(1, capacity // chunk)
        self.chunks = 0
        self.held: Samples | None = None

    def reach(self, chunks: int) -> None:
        """Render what is missing of the latest samples when `chunks` have been drawn, from the first on."""
        missing = range(max(self.chunks, chunks - self.slots), chunks)
        for number in missing if len(missing) < 2 else track(missing, "rendering faces"):
            rng = numbers("cpu", "encoder", self.seed, number)
            new = draw_samples(self.generator, self.chunk, self.side, rng, dtype=self.dtype, mixed=self.mixed)
            if self.held is None:
                self.held = Samples(
                    **{
                        f.name: getattr(new, f.name).new_zeros(
                            self.slots * self.chunk, *getattr(new, f.name).shape[1:]
                        )
                        for f in fields(new)
                    }
                )
            first = number % self.slots * self.chunk
            for f in fields(new):
                getattr(self.held, f.name)[first : first + self.chunk] = getattr(new, f.name)
        self.chunks = max(self.chunks, chunks)

    def draw(self, batch: int, some: int, rng: torch.Generator) -> Lesson:
        """A random batch, photographed; the first `some` get a picture to be compared with."""
        assert self.held is not None, "reach for samples first"
        held, device = self.held, self.held.ws.device
        filled = min(self.chunks, self.slots) * self.chunk
        integers = lambda high: torch.randint(high, (batch,), generator=rng, device=device)  # noqa: E731
        which, source, target = integers(filled), integers(VIEWS), integers(VIEWS)[:some]
        cover = held.alpha[which, source].float() / 255
        photo, framing = photographed(image(held.images[which, source]), cover, Imaging(), rng)
        return Lesson(
            photo=photo,
            pose=pose_of_camera(held.cameras[which, source], framing),
            ws=held.ws[which],
            target=image(held.images[which[:some], target]),
            camera=held.cameras[which[:some], target],
        )
