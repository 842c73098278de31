"""Training images in memory: several views of each head, with exact labels, as bytes on the device."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from my3dgen.cameras import FOCAL, PIVOT, RADIUS, camera_from_angles, mirror_camera
from my3dgen.pretrain.augment import Imaging, photographed
from my3dgen.prior.encoder import pose_of_camera
from my3dgen.synthetic.factors import sample_factors
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

RENDER_BATCH = 32
"""Heads rendered at once."""


BEHIND = 0.3
"""Share of the last views of heads that look from anywhere around them."""


def draw_cameras(
    count: int,
    views: int,
    rng: torch.Generator,
    *,
    behind: float = 0.0,
    radius: float = RADIUS,
    pivot: Sequence[float] = PIVOT,
    focal: float = FOCAL,
) -> Float[Tensor, "count views 25"]:
    """Training cameras: 60 % yaw N(0, 0.32), 40 % uniform within 1.0; pitch N(0.02, 0.14); radians.

    The wide share gives cheeks, ears and hair their evidence (synthetic heads, section 5). Of the last views
    a share `behind` is uniform over the circle: otherwise the back of a head may be anything, even a face.
    """
    near = torch.randn(count, views, generator=rng, device=rng.device) * 0.32
    wide = torch.rand(count, views, generator=rng, device=rng.device) * 2 - 1
    pick = torch.rand(count, views, generator=rng, device=rng.device) < 0.6
    yaw = torch.where(pick, near, wide).clamp(-1.15, 1.15)
    around = (torch.rand(count, generator=rng, device=rng.device) * 2 - 1) * math.pi
    last = torch.rand(count, generator=rng, device=rng.device) < behind
    yaw[:, -1] = torch.where(last, around, yaw[:, -1])
    pitch = (torch.randn(count, views, generator=rng, device=rng.device) * 0.14 + 0.02).clamp(-0.4, 0.4)
    cameras = camera_from_angles(yaw.flatten(), pitch.flatten(), radius=radius, pivot=pivot, focal=focal)
    return cameras.reshape(count, views, 25)


@dataclass(frozen=True)
class Batch:
    """One training batch: a source view of a head and a target view of the same head.

    Images are float in [-1, 1] on white; `depth` is the distance along the ray (0 where empty); `weight`
    is the loss weight of each target pixel, mean 1.
    """

    source: Float[Tensor, "batch 3 height width"]
    """As a photo's crop would show it, see `augment`."""
    pose: Float[Tensor, "batch 6"]
    """Where the source was taken from, see `encoder.POSE_UNITS`."""
    target: Float[Tensor, "batch 3 height width"]
    alpha: Float[Tensor, "batch 1 height width"]
    depth: Float[Tensor, "batch 1 low low"]
    weight: Float[Tensor, "batch 1 height width"]
    camera: Float[Tensor, "batch 25"]
    real: Float[Tensor, "batch 3 height width"]
    real_camera: Float[Tensor, "batch 25"]


# Loss weight by part: background, skin, hair, eye, teeth, cloth, glasses, lips, brows.
# Eyes and mouth are 2 % of the pixels and most of a likeness.
PART_WEIGHTS = (0.5, 1.0, 0.8, 6.0, 4.0, 0.4, 3.0, 4.0, 2.5)


class Pool:
    """Views of many heads on one device, as bytes. Grows by rendering; batches are drawn at random."""

    def __init__(self, capacity: int, views: int, size: int, device: torch.device):
        shape = (capacity, views)
        new = lambda *tail, dtype=torch.uint8: torch.empty(*shape, *tail, dtype=dtype, device=device)  # noqa: E731
        self.rgb: UInt8[Tensor, "scene view 3 size size"] = new(3, size, size)
        self.alpha: UInt8[Tensor, "scene view size size"] = new(size, size)
        self.parts: UInt8[Tensor, "scene view size size"] = new(size, size)
        self.depth: Float[Tensor, "scene view 64 64"] = new(64, 64, dtype=torch.float16)
        self.cameras: Float[Tensor, "scene view 25"] = new(25, dtype=torch.float32)
        self.part_weights = torch.tensor(PART_WEIGHTS, device=device)
        self.size, self.views, self.capacity, self.device = size, views, capacity, device
        self.filled = 0
        self.next = 0

    def render(
        self, seeds: Iterator[int], seconds: float, rng: torch.Generator, heads: int | None = None
    ) -> int:
        """Render new heads for `seconds` (or until `heads`), replacing the oldest when full.

        Returns the number of heads rendered.
        """
        start, done = time.monotonic(), 0
        while time.monotonic() - start < seconds and (heads is None or done < heads):
            count = min(RENDER_BATCH, self.capacity - self.next)
            if heads is not None:
                count = min(count, heads - done)
            factors = sample_factors([next(seeds) for _ in range(count)], self.device)
            cameras = draw_cameras(count, self.views, rng, behind=BEHIND).to(self.device)
            views = render_views(build_scenes(factors, self.device), cameras, size=self.size)
            here = slice(self.next, self.next + count)
            self.rgb[here], self.alpha[here], self.parts[here] = views.rgb, views.alpha, views.parts
            self.depth[here], self.cameras[here] = views.depth, cameras
            self.next = (self.next + count) % self.capacity
            self.filled = min(self.capacity, self.filled + count)
            done += count
        return done

    def image(
        self, scene: Int[Tensor, " batch"], view: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 s s"]:
        """Views as floats in [-1, 1]."""
        return self.rgb[scene, view].float() / 127.5 - 1

    def draw(self, batch: int, rng: torch.Generator, same: float = 0.25) -> Batch:
        """A random batch; source and target are one view in `same` of the cases.

        The last view of a head is no source, since it may show the back. Half the images judged as real are
        mirrored, with the mirrored camera.
        """
        integers = lambda high: torch.randint(high, (batch,), generator=rng, device=self.device)  # noqa: E731
        scene, source = integers(self.filled), integers(max(self.views - 1, 1))
        other = (source + 1 + integers(max(self.views - 1, 1))) % self.views
        keep = torch.rand(batch, generator=rng, device=self.device) < same
        target = torch.where(keep, source, other)
        weight = self.part_weights[self.parts[scene, target].long()][:, None]
        real_scene, real_view = integers(self.filled), integers(self.views)
        real, real_camera = self.image(real_scene, real_view), self.cameras[real_scene, real_view]
        flip = torch.rand(batch, generator=rng, device=self.device) < 0.5
        cover = self.alpha[scene, source][:, None].float() / 255
        photo, framing = photographed(self.image(scene, source), cover, Imaging(), rng)
        return Batch(
            source=photo,
            pose=pose_of_camera(self.cameras[scene, source], framing),
            target=self.image(scene, target),
            alpha=self.alpha[scene, target][:, None].float() / 255,
            depth=self.depth[scene, target][:, None].float(),
            weight=weight / weight.mean((2, 3), keepdim=True),
            camera=self.cameras[scene, target],
            real=torch.where(flip[:, None, None, None], real.flip(3), real),
            real_camera=torch.where(flip[:, None], mirror_camera(real_camera), real_camera),
        )

    @property
    def gigabytes(self) -> float:
        """Memory held, GB."""
        tensors = (self.rgb, self.alpha, self.parts, self.depth, self.cameras)
        return math.fsum(t.numel() * t.element_size() for t in tensors) / 1e9
