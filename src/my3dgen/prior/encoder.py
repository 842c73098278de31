"""Image to latents and camera in one pass: where inversion starts, and what shapes W while a prior trains.

The W latent says most; offsets of each layer's style from it (W+) add what one vector for all layers
can't say, and the camera says where the picture was taken from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from my3dgen.cameras import FOCAL, PIVOT, RADIUS, angles_from_camera, camera_from_angles, frame
from my3dgen.config import PriorConfig

LARGEST = 256
"""Side of the picture an encoder looks at; larger ones are reduced to it."""
POSE_UNITS = (0.5, 0.2, 0.05, 0.05, 0.02, 0.02)
"""Usual sizes of the numbers of a pose: yaw, pitch, roll (radians), zoom (log), shift right and down (image
widths)."""


@dataclass(frozen=True)
class EncoderConfig:
    """Size of an encoder."""

    img_resolution: int = 256
    """Side of its input, pixels; at least 16."""
    w_dim: int = 256
    """Width of the latent."""
    num_ws: int = 12
    """Style vectors of the prior."""
    widths: tuple[int, ...] = (32, 64, 96, 128, 160, 192)
    """Channels after each halving; the last resolution is flattened."""
    depths: tuple[int, ...] = (1, 2, 1, 1, 1, 1)
    """Residual blocks at each of these resolutions."""
    offset_rank: int = 40
    """Numbers from which the offsets of all layers are made."""
    camera_radius: float = RADIUS
    camera_pivot: Sequence[float] = PIVOT
    focal: float = FOCAL
    """Where the prior's cameras stand, look and how far they zoom, as in `PriorConfig`."""


def encoder_config(config: PriorConfig) -> EncoderConfig:
    """The encoder that fits a prior."""
    return EncoderConfig(
        img_resolution=min(config.img_resolution, LARGEST),
        w_dim=config.w_dim,
        num_ws=config.num_ws,
        camera_radius=config.camera_radius,
        camera_pivot=config.camera_pivot,
        focal=config.focal,
    )


@dataclass(frozen=True)
class Encoding:
    """What an encoder sees in pictures."""

    w: Float[Tensor, "batch w_dim"]
    """Latents in W."""
    ws: Float[Tensor, "batch num_ws w_dim"]
    """Latents in W+: `w` and an offset for every layer."""
    pose: Float[Tensor, "batch 6"]
    """Yaw, pitch, roll, zoom and shift in `POSE_UNITS`."""
    config: EncoderConfig

    @property
    def camera(self) -> Float[Tensor, "batch 25"]:
        """The pose as an EG3D label."""
        return camera_of_pose(self.pose, self.config)


class Residual(nn.Module):
    """Two normalised convolutions around a shortcut."""

    def __init__(self, width: int):
        super().__init__()
        self.norm0, self.norm1 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv0 = nn.Conv2d(width, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv1.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Shape is kept."""
        silu = nn.functional.silu
        return x + self.conv1(silu(self.norm1(self.conv0(silu(self.norm0(x))))))


class Encoder(nn.Module):
    """A convolutional network from one face crop to latents and a camera."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        inputs = 3
        for width, depth in zip(config.widths, config.depths, strict=True):
            layers.append(nn.Conv2d(inputs, width, 4, stride=2, padding=1))
            layers += [Residual(width) for _ in range(depth)]
            inputs = width
        self.trunk = nn.Sequential(*layers)
        side = config.img_resolution >> len(config.widths)
        self.norm = nn.GroupNorm(8, inputs)
        features = inputs * side * side
        self.head = nn.Linear(features, config.w_dim)
        # latents of about unit variance from the start, as the style layers expect
        nn.init.normal_(self.head.weight, std=1.7 * features**-0.5)
        self.squeeze = nn.Linear(features, config.offset_rank)
        self.offsets = nn.Linear(config.offset_rank, config.num_ws * config.w_dim)
        self.pose = nn.Linear(features, len(POSE_UNITS))
        for start in (self.offsets, self.pose):
            nn.init.zeros_(start.weight)
            nn.init.zeros_(start.bias)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], *, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch w_dim"]:
        """Latents in W for images in [-1, 1] on the prior's background."""
        return self.head(self._features(images, dtype))

    def encode(
        self, images: Float[Tensor, "batch 3 height width"], *, dtype: torch.dtype = torch.float32
    ) -> Encoding:
        """Latents in W and W+ and the camera, for images in [-1, 1] on the prior's background."""
        features = self._features(images, dtype)
        w, pose = self.head(features), self.pose(features)
        offsets = self.offsets(F.silu(self.squeeze(features)))
        ws = w[:, None] + offsets.view(len(w), self.config.num_ws, self.config.w_dim)
        return Encoding(w, ws, pose, self.config)

    def _features(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        device, side = images.device.type, self.config.img_resolution
        if images.shape[-1] != side:
            images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        x = images.to(memory_format=torch.channels_last)
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            x = F.silu(self.norm(self.trunk(x)))
        return x.float().flatten(1)


def pose_of_camera(
    cameras: Float[Tensor, "batch 25"], framing: Float[Tensor, "batch 4"]
) -> Float[Tensor, "batch 6"]:
    """The pose in `POSE_UNITS` of pictures that cameras of the prior took and `cameras.frame` moved."""
    yaw, pitch = angles_from_camera(cameras)
    return torch.cat([yaw[:, None], pitch[:, None], framing], 1) / cameras.new_tensor(POSE_UNITS)


def camera_of_pose(pose: Float[Tensor, "batch 6"], config: EncoderConfig) -> Float[Tensor, "batch 25"]:
    """The EG3D label of a pose in `POSE_UNITS`."""
    yaw, pitch, *framing = (pose * pose.new_tensor(POSE_UNITS)).unbind(1)
    cameras = camera_from_angles(
        yaw, pitch, radius=config.camera_radius, pivot=config.camera_pivot, focal=config.focal
    )
    return frame(cameras, torch.stack(framing, 1))
