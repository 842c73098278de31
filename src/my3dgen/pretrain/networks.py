"""The networks that train together, their averages, and the two kinds of step."""

import copy
from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor, nn

from my3dgen.config import PriorConfig
from my3dgen.pretrain import objectives
from my3dgen.pretrain.discriminator import Discriminator, DiscriminatorConfig
from my3dgen.pretrain.gaussian import LatentGaussian, moments
from my3dgen.pretrain.judging import Judging
from my3dgen.pretrain.objectives import Weights
from my3dgen.pretrain.pool import Batch
from my3dgen.prior.encoder import Encoder, encoder_config
from my3dgen.prior.generator import Generator, Rendered


def discriminator_config(config: PriorConfig) -> DiscriminatorConfig:
    """The discriminator for a generator: narrower than its backbone, for the labels teach most."""
    return DiscriminatorConfig(config.img_resolution, config.channel_base // 2, config.channel_max * 3 // 4)


class Networks:
    """Generator, encoder and discriminator, running averages of the first two, and how latents are spread."""

    kind = "heads"
    """What they are trained on."""

    def __init__(self, config: PriorConfig, device: torch.device, seed: int):
        torch.manual_seed(seed)
        rng = torch.Generator().manual_seed(seed)
        self.generator = Generator(config, rng)
        self.encoder = Encoder(encoder_config(config))
        self.discriminator = Discriminator(discriminator_config(config))
        for network in (self.generator, self.encoder, self.discriminator):
            network.to(device=device)
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.generator_average = copy.deepcopy(self.generator).requires_grad_(False)
        self.encoder_average = copy.deepcopy(self.encoder).requires_grad_(False)
        self.latents = LatentGaussian(config.w_dim, device)
        self.config, self.device = config, device

    @property
    def all(self) -> dict[str, nn.Module]:
        """Every network by name, for saving and loading."""
        return {
            "generator": self.generator,
            "encoder": self.encoder,
            "discriminator": self.discriminator,
            "generator_average": self.generator_average,
            "encoder_average": self.encoder_average,
        }

    @property
    def averages(self) -> dict[str, nn.Module]:
        """The running averages, which a prior is made from, by the names of the networks."""
        return {"generator": self.generator_average, "encoder": self.encoder_average}

    def average(self, decay: float) -> None:
        """Move the running averages by 1 - decay."""
        follow(self.generator_average, self.generator, decay)
        follow(self.encoder_average, self.encoder, decay)


@torch.no_grad()
def follow(mean: nn.Module, live: nn.Module, decay: float) -> None:
    """Move a running average of weights by 1 - decay; buffers (the mean latent) are copied."""
    for target, source in zip(mean.parameters(), live.parameters(), strict=True):
        target.lerp_(source, 1 - decay)
    for source, target in zip(live.buffers(), mean.buffers(), strict=True):
        target.copy_(source)


def parameters_of(*modules: nn.Module) -> list[Tensor]:
    """All parameters of some modules."""
    return [p for module in modules for p in module.parameters()]


def first(rendered: Rendered, count: int) -> Rendered:
    """The first images of a batch."""
    return Rendered(**{f.name: getattr(rendered, f.name)[:count] for f in fields(rendered)})


def density_roughness(generator: Generator, planes: Tensor, points: int = 1000) -> Tensor:
    """L1 difference of raw density between random points and close neighbours (EG3D spec 4.2)."""
    half = generator.config.box_warp / 2
    here = (torch.rand(len(planes), points, 3, device=planes.device) * 2 - 1) * half
    there = here + torch.randn_like(here) * (0.008 * half)
    _, sigma = generator.query(planes, torch.cat([here, there], 1))
    return (sigma[:, :points] - sigma[:, points:]).abs().mean()


class Steps(Judging):
    """Forward and backward of both sides."""

    def __init__(
        self,
        networks: Networks,
        perceptual: nn.Module,
        weights: Weights,
        dtype: torch.dtype,
        rng: torch.Generator,
        taps: Float[Tensor, " taps"] | None = None,
    ):
        super().__init__(networks.discriminator, weights.r1, dtype, taps)
        self.networks, self.perceptual, self.weights, self.rng = networks, perceptual, weights, rng

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.weights, name) * value for name, value in terms.items()]).sum()

    def _reconstruct(self, batch: Batch, adversarial: bool) -> dict[str, Tensor]:
        nets, generator = self.networks, self.networks.generator
        count = len(batch.source)
        paired = count // 2 if adversarial else count
        seen = nets.encoder.encode(batch.source[:paired], dtype=self.dtype)
        offsets = seen.ws - seen.w[:, None]
        # every other latent stays in W, so that W alone learns to say what it can
        in_w = (torch.arange(paired, device=offsets.device) % 2 == 0).view(-1, 1, 1)
        ws, cameras = seen.w[:, None] + offsets.masked_fill(in_w, 0.0), batch.camera[:paired]
        terms = {
            "offsets": offsets.square().mean(),
            "spread": seen.w.square().mean(),
            "pose": (seen.pose - batch.pose[:paired]).abs().mean(),
        }
        mean, square = moments(seen.w.detach())
        if adversarial:
            fresh = torch.randn(count - paired, seen.w.shape[1], device=ws.device)
            drawn = nets.latents.draw(fresh)[:, None].expand(-1, ws.shape[1], -1)
            ws, cameras = torch.cat([ws, drawn]), torch.cat([cameras, batch.real_camera[paired:]])
        with self.precision(nets.device):
            planes = generator.planes(ws, noise="none")
            rendered = generator.render(planes, cameras, ws, rng=self.rng)
            terms["smooth"] = density_roughness(generator, planes)
        again, target = first(rendered, paired), batch.target[:paired]
        terms |= objectives.reconstruction(
            again, target, batch.alpha[:paired], batch.depth[:paired], batch.weight[:paired]
        )
        with self.precision(nets.device):
            terms["perceptual"] = self.perceptual(again.image, target).mean()
        if adversarial:
            image = self.seen(rendered.image)
            logits = nets.discriminator(image, rendered.image_raw, cameras, dtype=self.dtype)
            losses = objectives.generator_adversarial(logits)
            terms |= {"paired": losses[:paired].mean(), "unpaired": losses[paired:].mean()}
        self._total(terms).backward()
        out = {name: value.detach() for name, value in terms.items()}
        out |= {"image": rendered.image.detach(), "image_raw": rendered.image_raw.detach()}
        return out | {"camera": cameras, "mean": mean, "square": square}

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        """Encoder and generator on paired views."""
        return self._reconstruct(batch, adversarial=False)

    def adversarial(self, batch: Batch) -> dict[str, Tensor]:
        """The same on half the batch; the other half are heads drawn from the Gaussian of the latents."""
        self.networks.discriminator.requires_grad_(False)
        out = self._reconstruct(batch, adversarial=True)
        self.networks.discriminator.requires_grad_(True)
        return out
