"""Training on synthetic heads: supervised by exact labels, then against a discriminator, too, at last the
encoder alone.

Each process renders heads of its own into memory and now and then replaces the oldest by new ones.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from my3dgen.config import PRESETS
from my3dgen.graphs import CapturedStep
from my3dgen.perceptual import load_perceptual
from my3dgen.pretrain import monitor
from my3dgen.pretrain.judging import Judged
from my3dgen.pretrain.networks import Networks, Steps, parameters_of
from my3dgen.pretrain.objectives import BLUR, Weights, blur_taps
from my3dgen.pretrain.parallel import Ranks, settle_gradients
from my3dgen.pretrain.pool import Batch, Pool
from my3dgen.pretrain.settings import TrainConfig
from my3dgen.pretrain.state import Progress
from my3dgen.progress import say

RATE, ENCODER_RATE, OFFSETS_RATE, DISCRIMINATOR_RATE = 2e-3, 5e-4, 2e-3, 2e-3
SAME, SAME_ALONE = 0.25, 0.5
"""How often source and target are one view: at first, and when the encoder learns alone."""


def my_seeds(first: int, ranks: Ranks) -> Iterator[int]:
    """Head seeds of this process: the processes share the training range without overlap."""
    return itertools.count(first + ranks.rank, ranks.size)


class HeadTraining:
    """Networks, optimisers and steps for synthetic heads."""

    watched = "pixel"
    """The figure that must stay finite."""

    def __init__(self, config: TrainConfig, ranks: Ranks):
        self.config, self.ranks = config, ranks
        device = ranks.device
        cuda = device.type == "cuda"
        shape = PRESETS[config.preset]
        self.networks = Networks(shape, device, config.seed)
        nets = self.networks
        nets.generator.backbone.mapping.requires_grad_(False)  # made from the latents' Gaussian
        drawing = [p for p in nets.generator.parameters() if p.requires_grad]
        self.trained = drawing + parameters_of(nets.encoder)
        offsets = parameters_of(nets.encoder.squeeze, nets.encoder.offsets)
        ids = {id(p) for p in offsets}
        seeing = [p for p in nets.encoder.parameters() if id(p) not in ids]
        self.alone = False
        """Whether the generator has settled and only the encoder learns."""
        self.judging = parameters_of(nets.discriminator)
        faster = 1.0 if config.rate is None else config.rate / RATE
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": torch.optim.Adam(
                [
                    {"params": drawing, "lr": RATE * faster},
                    {"params": seeing, "lr": ENCODER_RATE * faster},
                    {"params": offsets, "lr": OFFSETS_RATE * faster},
                ],
                betas=(0.5, 0.99),
                eps=1e-12,
                fused=cuda,
            ),
            "discriminator": torch.optim.Adam(
                self.judging, lr=DISCRIMINATOR_RATE * faster, betas=(0.0, 0.99), eps=1e-8, fused=cuda
            ),
        }
        default = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
        dtype = torch.bfloat16 if cuda else torch.float32
        perceptual = load_perceptual("squeeze-feat", str(device))
        taps = blur_taps(BLUR).to(device) if config.blur_images else None
        self.steps = Steps(nets, perceptual, Weights(r1=config.r1), dtype, default, taps)
        self.supervised = self._captured(self.steps.supervised, self.trained)
        self.adversarial = self._captured(self.steps.adversarial, self.trained)
        self.judge = self._captured(self.steps.judge, self.judging)
        self.judge_with_penalty = self._captured(
            lambda judged: self.steps.judge_with_penalty(judged, config.penalty_every), self.judging
        )
        self.pool = Pool(config.heads, config.views, shape.img_resolution, device)

    def prepare(self, progress: Progress) -> None:
        """Render the heads of the first step."""
        self._render(progress, self.config.first_render, self.config.heads)

    def refresh(self, progress: Progress) -> None:
        """Render new heads."""
        self._render(progress, self.config.refresh_render)

    def settle(self) -> None:
        """From now on the generator is its running average and stays; only the encoder learns."""
        nets = self.networks
        nets.generator.load_state_dict(nets.generator_average.state_dict())
        nets.generator.requires_grad_(False)
        for parameter in self.trained:
            parameter.grad = None
        self.trained = parameters_of(nets.encoder)
        self.supervised = self._captured(self.steps.supervised, self.trained)
        self.alone = True

    def _captured(self, step: Callable, parameters: list[Tensor]) -> CapturedStep:
        capture = self.ranks.device.type == "cuda" and self.config.capture
        return CapturedStep(step, parameters, capture=capture)

    def decay(self, progress: Progress) -> float:
        """How much of the running averages a step keeps."""
        return self._decay(progress.steps)

    def _decay(self, steps: int) -> float:
        images = self.config.batch * self.ranks.size
        return min(0.5 ** (images / self.config.average_images), 1 - 1 / (steps + 1))

    def step(self, progress: Progress, rng: torch.Generator) -> dict[str, Tensor]:
        """One step of every network; scalars are figures for the log."""
        config = self.config
        batch = self.pool.draw(config.batch, rng, same=SAME_ALONE if self.alone else SAME)
        adversarial = progress.images >= config.supervised_images and not self.alone
        if self.steps.taps is not None:
            left = 1 - progress.adversarial_images / max(config.blur_images or 0, 1)
            self.steps.taps.copy_(blur_taps(BLUR * max(left, 0.0)))
        out = (self.adversarial if adversarial else self.supervised)(batch)
        norm = settle_gradients(self.trained, self.ranks, config.clip)
        self.optimizers["generator"].step()
        out = {**out, "norm": norm}
        if self.alone:
            progress.encoder_images += config.batch * self.ranks.size
        else:  # later the generator knows no other latents
            self._follow_latents(out["mean"], out["square"], progress)
        if adversarial:
            progress.adversarial_images += config.batch * self.ranks.size
            judged = _judged(batch, out)
            due = progress.steps % config.penalty_every == 0
            verdict = (self.judge_with_penalty if due else self.judge)(judged)
            settle_gradients(self.judging, self.ranks, math.inf)
            self.optimizers["discriminator"].step()
            out |= verdict
        return out

    def look(self, path: Path) -> dict[str, float | int]:
        """Held-out heads through the encoder and sampled ones, as a sheet and figures."""
        return monitor.look(self.networks, self.pool, path, self.config.shown)

    @property
    def facts(self) -> dict[str, float | int]:
        """What the log says of the data."""
        return {"heads": self.pool.filled}

    def _render(self, progress: Progress, seconds: float, heads: int | None = None) -> None:
        seeds, start = my_seeds(progress.next_seed, self.ranks), time.monotonic()
        first = next(seeds)  # its own generator, because processes render different numbers of heads
        rng = torch.Generator(self.ranks.device).manual_seed(self.config.seed + first)
        count = self.pool.render(itertools.chain([first], seeds), seconds, rng, heads)
        # all processes move on by the largest share, so no seed is ever used twice
        most = torch.tensor([count], device=self.ranks.device)
        if self.ranks.size > 1:
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        progress.next_seed += int(most) * self.ranks.size
        if self.ranks.device.type == "cuda":
            torch.cuda.empty_cache()  # rendering takes much, and what it keeps training can't use
        spent, views = time.monotonic() - start, self.config.views
        if self.ranks.leads:
            say(
                f"rendered {count} heads x {views} views in {spent:.0f} s per process "
                f"({count * views / max(spent, 1e-9):.0f} images/s), {self.pool.gigabytes:.1f} GB"
            )

    def _follow_latents(self, mean: Tensor, square: Tensor, progress: Progress) -> None:
        """Keep the Gaussian of the encoder's latents: over all processes and about 20,000 images."""
        latents, size = self.networks.latents, self.ranks.size
        both = torch.cat([mean[None], square])
        if size > 1:
            torch.distributed.all_reduce(both)
        latents.follow(both[0] / size, both[1:] / size, self._decay(progress.steps + 1))
        if progress.steps % 20 == 0:
            latents.refresh()


def _judged(batch: Batch, out: dict[str, Tensor]) -> Judged:
    return Judged(batch.real, batch.real_camera, out["image"], out["image_raw"], out["camera"])
