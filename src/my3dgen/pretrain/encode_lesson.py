"""What an encoder of a frozen prior learns from one batch of the prior's faces."""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.config import PriorConfig
from my3dgen.latents import latent_statistics
from my3dgen.perceptual import Perceptual
from my3dgen.pretrain.samples import Lesson, reduced
from my3dgen.prior.encoder import Encoder
from my3dgen.prior.generator import Generator
from my3dgen.prior.render import Sampling


@dataclass(frozen=True)
class Weights:
    """Weight of each term of the encoder's loss."""

    w: float = 0.5
    """Squared error of W, in units of the prior's variance."""
    ws: float = 0.5
    """Squared error of W+, in the same units."""
    pixel: float = 1.0
    """L1 of the picture."""
    perceptual: float = 0.1
    """Feature distance of the picture."""
    pose: float = 0.1
    """L1 of the camera, in `encoder.POSE_UNITS`."""


@dataclass(frozen=True)
class Unit:
    """What training takes for 0 and 1 of latents, so that no prior's scale changes the learning rate."""

    mean: Float[Tensor, " w_dim"]
    deviation: float

    @staticmethod
    def of(generator: Generator) -> "Unit":
        """Mean and overall deviation of a prior's latents."""
        statistics = latent_statistics(generator)
        deviation = float(statistics.spread.square().sum() / len(statistics.mean)) ** 0.5
        return Unit(statistics.mean, max(deviation, 1e-6))

    def decode(self, u: Float[Tensor, "*shape w_dim"]) -> Float[Tensor, "*shape w_dim"]:
        """Latents."""
        return self.mean + self.deviation * u

    def encode(self, w: Float[Tensor, "*shape w_dim"]) -> Float[Tensor, "*shape w_dim"]:
        """The inverse of `decode`."""
        return (w - self.mean) / self.deviation

    @torch.no_grad()
    def into(self, encoder: Encoder) -> Encoder:
        """A copy of an encoder that tells latents, made to tell them in this unit."""
        copied = _scaled(encoder, 1 / self.deviation)
        copied.head.bias.sub_(self.mean / self.deviation)
        return copied

    @torch.no_grad()
    def out_of(self, encoder: Encoder) -> Encoder:
        """The inverse of `into`."""
        copied = _scaled(encoder, self.deviation)
        copied.head.bias.add_(self.mean)
        return copied


def _scaled(encoder: Encoder, factor: float) -> Encoder:
    copied = copy.deepcopy(encoder)
    for layer in (copied.head, copied.offsets):
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)
    return copied


def lesson_terms(
    encoder: Encoder,
    generator: Generator,
    unit: Unit,
    perceptual: Perceptual,
    lesson: Lesson,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """The terms of the loss by name; `encoder` tells latents in `unit`."""
    seen, some = encoder.encode(lesson.photo, dtype=dtype), len(lesson.target)
    truth = unit.encode(lesson.ws)
    terms = {
        "w": (seen.w - truth.mean(1)).square().mean(),
        "ws": (seen.ws - truth).square().mean(),
        "pose": (seen.pose - lesson.pose).abs().mean(),
    }
    # every other picture is made from W, where inversion starts
    in_w = (torch.arange(some, device=truth.device) % 2 == 0).view(-1, 1, 1)
    ws = unit.decode(torch.where(in_w, seen.w[:some, None], seen.ws[:some]))
    with torch.autocast(truth.device.type, dtype=dtype, enabled=dtype != torch.float32):
        picture = generator.synthesis(ws, lesson.camera, sampling=halved(generator.config)).image
        picture = reduced(picture.float(), lesson.target.shape[-1])
        terms["perceptual"] = perceptual(picture, lesson.target).mean()
    return terms | {"pixel": (picture - lesson.target).abs().mean()}


def halved(config: PriorConfig) -> Sampling:
    """Half the samples of a ray: enough to steer by."""
    return Sampling(max(4, config.depth_resolution // 2), config.depth_resolution_importance // 2)
