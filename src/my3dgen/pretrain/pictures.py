"""Training on a folder of pictures with cameras: adversarial from the first step (EG3D spec 4)."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from my3dgen.config import PRESETS
from my3dgen.graphs import CapturedStep
from my3dgen.pretrain import gan, monitor
from my3dgen.pretrain.folder import FolderPool
from my3dgen.pretrain.gan import AdversarialNetworks, AdversarialSteps, Draw
from my3dgen.pretrain.judging import Judged
from my3dgen.pretrain.objectives import BLUR, blur_taps
from my3dgen.pretrain.parallel import Ranks, settle_gradients
from my3dgen.pretrain.settings import TrainConfig
from my3dgen.pretrain.state import Progress
from my3dgen.prior.mapping import update_w_avg
from my3dgen.progress import say

RATE, DISCRIMINATOR_RATE = 2.5e-3, 2e-3
"""EG3D's. Its regularisation has steps of its own and lowers the rates for them; here it has none."""
BLUR_STEPS = 200_000 / 32
"""Steps over which the blur fades by default."""


class PictureTraining:
    """Networks, optimisers and steps for the pictures in the folder `config.data`."""

    watched = "generator"
    """The figure that must stay finite."""
    alone = False
    """There is no encoder that could learn alone."""

    def __init__(self, config: TrainConfig, ranks: Ranks, keep: Path, stopped: Callable[[], bool]):
        assert config.data is not None
        self.config, self.ranks = config, ranks
        device, self.images = ranks.device, config.batch * ranks.size
        cuda = device.type == "cuda"
        shape = PRESETS[config.preset]
        self.networks = AdversarialNetworks(shape, device, config.seed)
        self.trained = list(self.networks.generator.parameters())
        self.judging = list(self.networks.discriminator.parameters())
        faster = 1.0 if config.rate is None else config.rate / RATE
        adam = lambda parameters, rate: torch.optim.Adam(  # noqa: E731
            parameters, lr=rate * faster, betas=(0.0, 0.99), eps=1e-8, fused=cuda
        )
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": adam(self.trained, RATE),
            "discriminator": adam(self.judging, DISCRIMINATOR_RATE),
        }
        default = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
        dtype = torch.bfloat16 if cuda else torch.float32
        self.blur_images = BLUR_STEPS * self.images if config.blur_images is None else config.blur_images
        taps = blur_taps(BLUR).to(device) if self.blur_images else None
        self.steps = AdversarialSteps(self.networks, config.r1, dtype, default, taps)
        captured = lambda step, parameters: CapturedStep(step, parameters, capture=cuda and config.capture)  # noqa: E731
        self.generate = captured(self.steps.generate, self.trained)
        self.generate_with_density = captured(self.steps.generate_with_density, self.trained)
        self.judge = captured(self.steps.judge, self.judging)
        self.judge_with_penalty = captured(
            lambda judged: self.steps.judge_with_penalty(judged, config.penalty_every), self.judging
        )
        self.pool = FolderPool(
            config.data,
            shape.img_resolution,
            device,
            gigabytes=config.memory,
            keep=keep,
            writes=ranks.leads,
            wait=torch.distributed.barrier if ranks.size > 1 else lambda: None,
            stopped=stopped,
        )

    def prepare(self, progress: Progress) -> None:
        """The pictures are there."""
        if self.ranks.leads:
            say(f"{len(self.pool)} pictures of {self.pool.folder}, {self.pool.bytes / 1e9:.1f} GB")

    def refresh(self, progress: Progress) -> None:
        """They stay."""

    def decay(self, progress: Progress) -> float:
        """How much of the running average a step keeps."""
        return gan.half_life_decay(self.images, progress.images)

    def step(self, progress: Progress, rng: torch.Generator) -> dict[str, Tensor]:
        """One step of both networks; scalars are figures for the log."""
        if self.steps.taps is not None:
            left = 1 - progress.images / max(self.blur_images, 1)
            self.steps.taps.copy_(blur_taps(BLUR * max(left, 0.0)))
        draw = self._draw(progress, rng)
        smooth = progress.steps % gan.DENSITY_EVERY == 0
        out = (self.generate_with_density if smooth else self.generate)(draw)
        norm = settle_gradients(self.trained, self.ranks, math.inf)
        self.optimizers["generator"].step()
        self._follow_mean(out["w"])
        judged = Judged(draw.real, draw.real_camera, out["image"], out["image_raw"], draw.camera)
        due = progress.steps % self.config.penalty_every == 0
        verdict = (self.judge_with_penalty if due else self.judge)(judged)
        settle_gradients(self.judging, self.ranks, math.inf)
        self.optimizers["discriminator"].step()
        progress.adversarial_images += self.images
        return {**out, "norm": norm, **verdict}

    def look(self, path: Path) -> dict[str, float | int]:
        """Pictures of the dataset and faces drawn from the prior, as a sheet."""
        monitor.look_at_draws(self.networks, self.pool, path, self.config.shown)
        return {}

    @property
    def facts(self) -> dict[str, float | int]:
        """What the log says of the data."""
        return {"pictures": len(self.pool)}

    def _draw(self, progress: Progress, rng: torch.Generator) -> Draw:
        config, batch = self.config, self.pool.draw(self.config.batch, rng)
        often = gan.swap_probability(progress.images, config.swap, config.swap_images)
        swapped = torch.rand(config.batch, generator=rng, device=rng.device) < often
        z = torch.randn(config.batch, self.networks.config.z_dim, generator=rng, device=rng.device)
        condition = gan.conditions(batch.camera, batch.other_camera, swapped)
        return Draw(z, batch.camera, condition, batch.real, batch.real_camera)

    def _follow_mean(self, w: Tensor) -> None:
        """Keep the mean latent, over all processes."""
        if self.ranks.size > 1:
            torch.distributed.all_reduce(w)
        update_w_avg(self.networks.generator.backbone.mapping, w[None] / self.ranks.size)
