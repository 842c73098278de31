"""Whom to draw: a generator, a person's adapter and anchors, or faces the prior itself imagines."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.alpha import decode
from my3dgen.cameras import fov_to_intrinsics
from my3dgen.errors import UserError
from my3dgen.lora import Adapter
from my3dgen.person import Person
from my3dgen.prior.generator import Generator, Rendered
from my3dgen.prior.store import Prior

TRUNCATION = 0.7
FACE_LIMIT = 10_000
RENDER_RESOLUTIONS = (16, 512)


@dataclass(frozen=True)
class Subject:
    """Everything that drawing needs. For a plain prior the anchors are faces drawn from it."""

    generator: Generator
    adapter: Adapter | None
    anchors: Float[Tensor, "anchors num_ws w_dim"]
    cameras: Float[Tensor, "anchors 25"]
    home: Float[Tensor, " anchors"]
    """Alpha drawn when nothing else is asked for: a person's mean, a plain prior's first face."""

    def alpha(
        self, anchor: int | None = None, weights: Mapping[int, float | int] | None = None
    ) -> Float[Tensor, " anchors"]:
        """Alpha coordinates of one anchor, of a mixture (divided by its sum), or of `home`.

        Raises UserError for an anchor that is not there, both at once, or weights that sum to 0.
        """
        if anchor is not None and weights:
            raise UserError("give an anchor or alpha weights, not both")
        if anchor is not None:
            weights = {anchor: 1}
        if not weights:
            return self.home
        for index in weights:
            self.check_anchor(index)
        total = sum(weights.values())
        if not 1e-6 <= abs(total) < math.inf:
            raise UserError(f"the alpha weights sum to {total:g}; they are divided by it, so choose others")
        alpha = torch.zeros_like(self.home)
        for index, weight in weights.items():
            alpha[index] = weight / total
        return alpha

    def check_anchor(self, index: int) -> None:
        """Raise UserError, with the range, unless the anchor is there."""
        if not 0 <= index < len(self.anchors):
            raise UserError(f"anchor {index} does not exist; there are 0 to {len(self.anchors) - 1}")

    def latent(
        self, anchor: int | None = None, weights: Mapping[int, float | int] | None = None
    ) -> Float[Tensor, "1 num_ws w_dim"]:
        """The latent w = sum over anchors of alpha * anchor (EG3D spec 5.8); arguments as `alpha`."""
        return decode(self.alpha(anchor, weights)[None], self.anchors)

    def camera(
        self,
        yaw: float | int | Tensor = 0.0,
        pitch: float | int | Tensor = 0.0,
        fov: float | int | None = None,
    ) -> Float[Tensor, "views 25"]:
        """Cameras at yaw and pitch (radians), on the prior's own sphere; `fov` in diagonal degrees.

        Raises UserError for angles that are not finite and a field of view out of range.
        """
        angles = [torch.as_tensor(angle, dtype=torch.float32) for angle in (yaw, pitch)]
        if not all(angle.isfinite().all() for angle in angles):
            raise UserError("an angle of the camera is not a finite number; give degrees, such as 20")
        return with_fov(self.generator.cameras(*angles), fov).to(self.anchors.device)


def with_fov(cameras: Float[Tensor, "views 25"], fov: float | int | None) -> Float[Tensor, "views 25"]:
    """The cameras with another diagonal field of view, in degrees. Raises UserError out of 2 to 90."""
    if fov is None:
        return cameras
    if not 2 <= fov <= 90:
        raise UserError(f"field of view {fov:g} is out of range; choose 2 to 90 degrees")
    intrinsics = fov_to_intrinsics(float(fov)).to(cameras)
    return torch.cat([cameras[:, :16], intrinsics.expand(len(cameras), -1)], dim=1)


@torch.no_grad()
def subject_of(
    prior: Prior, person: Person | None = None, *, seed: int = 0, wanted: Sequence[int] = (0,)
) -> Subject:
    """The person on the prior; without a person, faces of the prior from seeds seed, seed + 1...

    There are as many of those as the anchors `wanted` ask for. Raises PriorMismatchError when the
    person was made with another prior.
    """
    generator = prior.generator
    device = next(generator.parameters()).device
    if person is not None:
        person.check_prior(prior)
        anchors = person.anchors.ws.to(device)
        home = torch.full((len(anchors),), 1 / len(anchors), device=device)
        adapter = person.adapter.to(device)
        return Subject(generator, adapter, anchors, person.anchors.cameras.to(device), home)
    count = 1 + min(max(0, *wanted), FACE_LIMIT - 1)
    anchors = prior_latents(generator, range(seed, seed + count))
    home = torch.zeros(count, device=device)
    home[0] = 1
    blank = Subject(generator, None, anchors, torch.zeros(count, 25, device=device), home)
    return Subject(generator, None, anchors, blank.camera().repeat(count, 1), home)


def prior_latents(generator: Generator, seeds: range) -> Float[Tensor, "seeds num_ws w_dim"]:
    """One face of the prior a seed, truncated with psi 0.7; a seed's face does not depend on the others."""
    config, device = generator.config, next(generator.parameters()).device
    z = [torch.randn(1, config.z_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    frontal = generator.cameras()
    # one at a time: in a batch, rounding depends on its size
    return torch.cat([generator.mapping(one.to(device), frontal, psi=TRUNCATION) for one in z])


@torch.no_grad()
def draw(
    subject: Subject,
    ws: Float[Tensor, "1 num_ws w_dim"],
    cameras: Float[Tensor, "views 25"],
    resolution: int | None = None,
) -> Iterator[Rendered]:
    """One latent from many cameras, one at a time; the planes are computed once.

    `resolution` is the side of the volume rendering, the prior's own by default. Raises UserError
    when it is out of range.
    """
    low, high = RENDER_RESOLUTIONS
    if resolution is not None and not low <= resolution <= high:
        raise UserError(f"rendering resolution {resolution} is out of range; choose {low} to {high}")
    generator = subject.generator
    planes = generator.planes(ws, subject.adapter)
    for camera in cameras.split(1):
        yield generator.render(planes, camera, ws, subject.adapter, resolution=resolution)
