"""The tri-plane generator (EG3D spec 1): parameters only, no hidden state.

    z, camera ──mapping──▶ ws ──planes──▶ tri-plane ──render(camera)──▶ image_raw ──▶ image

Planes and rendering are separate, so who wants to keep planes between views keeps them outside.
An adapter is an argument, never a mutation; randomness is an argument, and without it rendering
is deterministic. Under `torch.autocast` to bfloat16 convolutions and the decoder run in bfloat16;
style vectors, planes, geometry and compositing stay in float32. Nothing here waits for the
device, so whole training steps can be captured in a CUDA graph.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from my3dgen.cameras import camera_from_angles
from my3dgen.config import NoiseMode, PriorConfig
from my3dgen.ops.fused_render import FusedField
from my3dgen.ops.triplane import sample_planes
from my3dgen.prior.adaptation import Adaptation, AdapterLike
from my3dgen.prior.decoder import Decoder
from my3dgen.prior.initialize import initialize
from my3dgen.prior.mapping import MappingNetwork, truncate
from my3dgen.prior.rays import camera_rays
from my3dgen.prior.render import Sampling, render_rays
from my3dgen.prior.superres import Superresolution
from my3dgen.prior.synthesis import SynthesisNetwork

Planes = Float[Tensor, "batch 3 features side side"]
Latents = Float[Tensor, "batch num_ws w_dim"]


@dataclass(frozen=True)
class Rendered:
    """What a view shows. Images are about [-1, 1], not clamped."""

    image: Float[Tensor, "batch 3 size size"]
    """The final image."""
    image_raw: Float[Tensor, "batch 3 r r"]
    """The volume-rendered image before super-resolution."""
    depth: Float[Tensor, "batch 1 r r"]
    """Distance along the ray in world units. Clamped to the samples' range over the whole batch."""
    opacity: Float[Tensor, "batch 1 r r"]
    """Share of the ray that is not background, in [0, 1]."""


@dataclass(frozen=True)
class Volume:
    """A view before super-resolution."""

    features: Float[Tensor, "batch features r r"]
    """Volume-rendered features, about [-1, 1]; the first three channels are the raw image."""
    depth: Float[Tensor, "batch 1 r r"]
    opacity: Float[Tensor, "batch 1 r r"]


class Backbone(nn.Module):
    """Mapping and synthesis, under the names EG3D's state dicts give them."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)


class Generator(nn.Module):
    """A prior's network. State-dict keys are EG3D's (without the unused `dataset_label_std`).

    `rng` (a CPU generator) draws the initial weights; None draws from seed 0. Built under
    `torch.device("meta")` it holds no memory; load with `load_state_dict(..., assign=True)`.
    """

    def __init__(self, config: PriorConfig, rng: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.superresolution = Superresolution(config)
        self.decoder = Decoder(config)
        initialize(self, torch.Generator("cpu").manual_seed(0) if rng is None else rng)

    @property
    def w_avg(self) -> Float[Tensor, " w_dim"]:
        """The running mean of w, toward which `psi` pulls. See `my3dgen.prior.mapping.update_w_avg`."""
        return self.backbone.mapping.w_avg

    @property
    def parameter_count(self) -> int:
        """Trainable numbers in the network, buffers excluded."""
        return sum(parameter.numel() for parameter in self.parameters())

    def cameras(self, yaw: float | Tensor = 0.0, pitch: float | Tensor = 0.0) -> Float[Tensor, "batch 25"]:
        """Cameras on the prior's own sphere, at angles in radians; without any the frontal one."""
        config = self.config
        cameras = camera_from_angles(
            yaw, pitch, radius=config.camera_radius, pivot=config.camera_pivot, focal=config.focal
        )
        return cameras.to(self.w_avg.device)

    def mapping(
        self,
        z: Float[Tensor, "batch z_dim"],
        c: Float[Tensor, "batch 25"] | None,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Latents:
        """Style vectors for Gaussian latents.

        `c` conditions the identity and is normally the frontal camera, not that of the view; None
        is allowed if the prior ignores it. `psi` pulls the first `cutoff` vectors to the mean.
        """
        with torch.autocast(z.device.type, enabled=False):
            w = self.backbone.mapping(z.float(), None if c is None else c.float())
            return truncate(w, self.w_avg, self.config.num_ws, psi, cutoff)

    def planes(
        self,
        ws: Latents,
        adapter: AdapterLike | None = None,
        *,
        noise: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> Planes:
        """The tri-planes of latents. Noise 'random' needs `rng`.

        Raises ValueError if the adapter has one entry per image and their number is not the batch's.
        """
        change = self._change(adapter, len(ws)).at("backbone.synthesis")
        dtype = _convolution_dtype(ws)
        with torch.autocast(ws.device.type, enabled=False):
            stacked = self.backbone.synthesis(ws.float(), change, noise, rng, dtype)
        return stacked.unflatten(1, (3, -1))

    def render(
        self,
        planes: Float[Tensor, "#batch 3 features side side"],
        cameras: Float[Tensor, "batch 25"],
        ws: Float[Tensor, "#batch num_ws w_dim"],
        adapter: AdapterLike | None = None,
        *,
        sampling: Sampling | None = None,
        resolution: int | None = None,
        rng: torch.Generator | None = None,
    ) -> Rendered:
        """Views of planes. `ws` styles the super-resolution; the adapter changes it.

        Planes and latents of batch 1 serve any number of cameras. `resolution` is the side of
        the volume-rendered image (default: the configuration's). Without `rng` the result is
        deterministic; with it samples are jittered as in EG3D.
        """
        volume = self.volume(planes, cameras, sampling=sampling, resolution=resolution, rng=rng)
        image = self.superresolve(volume.features, ws, adapter, rng=rng)
        return Rendered(image, volume.features[:, :3], volume.depth, volume.opacity)

    def volume(
        self,
        planes: Float[Tensor, "#batch 3 features side side"],
        cameras: Float[Tensor, "batch 25"],
        *,
        sampling: Sampling | None = None,
        resolution: int | None = None,
        rng: torch.Generator | None = None,
        fused: bool = True,
    ) -> Volume:
        """The first half of `render`: what the rays meet.

        With `fused`, kernels of our own do it where they can, on CUDA (`my3dgen.ops.fused_render`): the
        same to rounding, a fifth of the time and a twentieth of the memory.
        """
        batch = len(cameras)
        if len(planes) not in (1, batch):
            raise ValueError(f"{len(planes)} planes for {batch} cameras")
        dtype = _convolution_dtype(planes)
        side = resolution or self.config.neural_rendering_resolution
        with torch.autocast(planes.device.type, enabled=False):
            origins, directions = camera_rays(cameras.float(), side)
            rays = render_rays(
                lambda points: self._field(planes, points, dtype),
                origins,
                directions,
                self.config,
                sampling or Sampling.of(self.config),
                rng,
                self._fused_field(planes, dtype) if fused else None,
            )
        return Volume(
            features=rays.colours.unflatten(1, (side, side)).permute(0, 3, 1, 2),  # channels last
            depth=rays.clamped_depth().reshape(batch, 1, side, side),
            opacity=rays.opacity.reshape(batch, 1, side, side),
        )

    def superresolve(
        self,
        features: Float[Tensor, "batch features r r"],
        ws: Float[Tensor, "#batch num_ws w_dim"],
        adapter: AdapterLike | None = None,
        *,
        resolution: int | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "batch 3 size size"]:
        """The second half of `render`. `resolution` as in `Superresolution.forward`."""
        if len(ws) not in (1, len(features)):
            raise ValueError(f"{len(features)} pictures and {len(ws)} latents")
        change = self._change(adapter, len(features)).at("superresolution")
        dtype = _convolution_dtype(features)
        with torch.autocast(features.device.type, enabled=False):
            return self.superresolution(features, ws[:, -1].float(), change, rng, dtype, resolution)

    def synthesis(
        self,
        ws: Latents,
        cameras: Float[Tensor, "batch 25"],
        adapter: AdapterLike | None = None,
        *,
        sampling: Sampling | None = None,
        resolution: int | None = None,
        noise: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> Rendered:
        """`planes`, then `render`."""
        planes = self.planes(ws, adapter, noise=noise, rng=rng)
        return self.render(planes, cameras, ws, adapter, sampling=sampling, resolution=resolution, rng=rng)

    def query(
        self, planes: Planes, points: Float[Tensor, "batch points 3"]
    ) -> tuple[Float[Tensor, "batch points colours"], Float[Tensor, "batch points 1"]]:
        """(colours in about [0, 1], raw densities) at points in world units."""
        dtype = _convolution_dtype(planes)
        with torch.autocast(planes.device.type, enabled=False):
            colours, densities = self._field(planes, points.float(), dtype)
        return colours, densities[..., None]

    def forward(self, ws: Latents, cameras: Float[Tensor, "batch 25"]) -> Rendered:
        """`synthesis` of the bare prior."""
        return self.synthesis(ws, cameras)

    def _field(self, planes: Planes, points: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        shape = points.shape[:2]
        if len(planes) == 1:  # all views look into the same planes
            points = points.reshape(1, -1, 3)
        features = sample_planes(planes, points * (2 / self.config.box_warp), self.config.plane_mode, dtype)
        colours, densities = self.decoder(features)
        return colours.reshape(*shape, -1), densities.reshape(shape)

    def _fused_field(self, planes: Planes, dtype: torch.dtype) -> FusedField:
        config = self.config
        return FusedField(planes, self.decoder.perceptron(), config.plane_mode, config.box_warp, dtype)

    def _change(self, adapter: AdapterLike | None, batch: int) -> Adaptation:
        if adapter is not None and adapter.batch not in (None, batch):
            raise ValueError(f"the adapter has {adapter.batch} entries for a batch of {batch}")
        return Adaptation.of(adapter)


def _convolution_dtype(like: Tensor) -> torch.dtype:
    """bfloat16 inside an autocast to it, else float32 (demodulation overflows float16)."""
    device = like.device.type
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16:
        return torch.bfloat16
    return torch.float32
