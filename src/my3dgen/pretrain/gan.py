"""Training on pictures that have nothing but cameras: adversarial alone (EG3D spec 4).

The mapping is trained, and sees the camera where the configuration lets it. So that it can't put the view
into the identity, it is often shown another picture's camera than the one that renders.
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from my3dgen.config import PriorConfig
from my3dgen.pretrain import objectives
from my3dgen.pretrain.discriminator import Discriminator, DiscriminatorConfig
from my3dgen.pretrain.judging import Judging
from my3dgen.pretrain.networks import density_roughness, follow
from my3dgen.prior.generator import Generator

DENSITY = 0.25
"""Weight of the difference of densities between neighbouring points."""
DENSITY_EVERY = 4
"""Steps between uses of that term, which then counts as often."""
MAPPING_LAYERS = 8
"""Dense layers between camera and camera code in the discriminator."""
HALF_LIFE = 10_000 / 32
"""Half-life of the running average of weights, steps; at first it is a twentieth of the training so far."""


@dataclass(frozen=True)
class Draw:
    """What a step of both sides learns from."""

    z: Float[Tensor, "batch z_dim"]
    camera: Float[Tensor, "batch 25"]
    """From where the generator's images are rendered."""
    condition: Float[Tensor, "batch 25"]
    """The camera that the mapping sees."""
    real: Float[Tensor, "batch 3 height width"]
    real_camera: Float[Tensor, "batch 25"]


def swap_probability(images: int, final: float, fade: int) -> float:
    """How often the mapping sees another camera after training on `images`: from 1 to `final` over `fade`."""
    return final if fade <= 0 else max(final, 1 - (1 - final) * images / fade)


def conditions(
    cameras: Float[Tensor, "batch 25"], others: Float[Tensor, "batch 25"], swapped: Bool[Tensor, " batch"]
) -> Float[Tensor, "batch 25"]:
    """The cameras that the mapping sees: those of `others` where `swapped`."""
    return torch.where(swapped[:, None], others, cameras)


def half_life_decay(images: int, seen: int) -> float:
    """How much of the running average a step of `images` keeps after `seen` images in all (EG3D spec 4.2)."""
    return 0.5 ** (images / max(min(HALF_LIFE * images, 0.05 * seen), 1e-8))


def discriminator_config(config: PriorConfig) -> DiscriminatorConfig:
    """The discriminator of EG3D for a generator: channels like its backbone's (EG3D spec 4.1)."""
    return DiscriminatorConfig(
        config.img_resolution, config.channel_base, config.channel_max, mapping_layers=MAPPING_LAYERS
    )


class AdversarialNetworks:
    """Generator, discriminator, and the generator's running average."""

    kind = "pictures"
    """What they are trained on."""
    latents = None
    """No Gaussian of latents: the mapping is trained."""

    def __init__(self, config: PriorConfig, device: torch.device, seed: int):
        torch.manual_seed(seed)
        self.generator = Generator(config, torch.Generator().manual_seed(seed))
        self.discriminator = Discriminator(discriminator_config(config))
        for network in (self.generator, self.discriminator):
            network.to(device=device)
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.generator_average = copy.deepcopy(self.generator).requires_grad_(False)
        self.config, self.device = config, device

    @property
    def all(self) -> dict[str, nn.Module]:
        """Every network by name, for saving and loading."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_average": self.generator_average,
        }

    @property
    def averages(self) -> dict[str, nn.Module]:
        """The running averages, which a prior is made from, by the names of the networks."""
        return {"generator": self.generator_average}

    def average(self, decay: float) -> None:
        """Move the running average by 1 - decay."""
        follow(self.generator_average, self.generator, decay)


class AdversarialSteps(Judging):
    """Forward and backward of both sides."""

    def __init__(
        self,
        networks: AdversarialNetworks,
        r1: float,
        dtype: torch.dtype,
        rng: torch.Generator,
        taps: Float[Tensor, " taps"] | None = None,
    ):
        super().__init__(networks.discriminator, r1, dtype, taps)
        self.generator, self.rng = networks.generator, rng

    def generate(self, draw: Draw) -> dict[str, Tensor]:
        """The generator against the discriminator."""
        return self._generate(draw, density=False)

    def generate_with_density(self, draw: Draw) -> dict[str, Tensor]:
        """The same with the lazy regularisation of densities."""
        return self._generate(draw, density=True)

    def _generate(self, draw: Draw, density: bool) -> dict[str, Tensor]:
        generator = self.generator
        self.discriminator.requires_grad_(False)
        ws = generator.mapping(draw.z, draw.condition)
        with self.precision(draw.z.device):
            planes = generator.planes(ws, noise="random", rng=self.rng)
            rendered = generator.render(planes, draw.camera, ws, rng=self.rng)
        logits = self.discriminator(
            self.seen(rendered.image), rendered.image_raw, draw.camera, dtype=self.dtype
        )
        loss = objectives.generator_adversarial(logits).mean()
        out = {"generator": loss.detach()}
        if density:
            with self.precision(draw.z.device):
                roughness = density_roughness(generator, planes)
            out["density"] = roughness.detach()
            loss = loss + DENSITY * DENSITY_EVERY * roughness
        loss.backward()
        self.discriminator.requires_grad_(True)
        out |= {"image": rendered.image.detach(), "image_raw": rendered.image_raw.detach()}
        return out | {"w": ws[:, 0].detach().mean(0)}
