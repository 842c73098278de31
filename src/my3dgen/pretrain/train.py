"""Training a prior on synthetic heads, on a CPU, one GPU or many.

Each process renders its own heads into memory, trains, and now and then replaces the oldest heads by
new ones. First supervised (encoder and generator on exact labels), then with the discriminator.
Ctrl-C or the end of the time saves everything; the same command goes on from there.
"""

import itertools
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from my3dgen.config import PRESETS
from my3dgen.errors import UserError
from my3dgen.perceptual import load_perceptual
from my3dgen.pretrain import monitor, state
from my3dgen.pretrain.graphs import CapturedStep
from my3dgen.pretrain.networks import Judged, Networks, Steps, parameters_of
from my3dgen.pretrain.objectives import BLUR, Weights, blur_taps
from my3dgen.pretrain.parallel import Ranks, agree, join, leave, settle_gradients
from my3dgen.pretrain.pool import Batch, Pool
from my3dgen.progress import say
from my3dgen.synthetic.factors import TRAIN_SEEDS


@dataclass(frozen=True)
class TrainConfig:
    """How to train a prior."""

    preset: str = "mini"
    """Name of the generator's configuration."""
    minutes: float = 10.0
    """Wall-clock budget of this run, rendering included."""
    batch: int = 32
    """Images per step and process; a multiple of 8."""
    heads: int = 12000
    """Heads kept in memory per process."""
    views: int = 4
    """Views rendered of each head."""
    first_render: float = 90.0
    """Seconds of rendering before the first step."""
    refresh_every: float = 240.0
    """Seconds of training between renderings of new heads."""
    refresh_render: float = 30.0
    """Seconds of each such rendering."""
    supervised_images: int = 600_000
    """Images before the discriminator joins."""
    blur_images: int = 0
    """Images over which the blur of what the discriminator sees fades; 0 for none, because after the
    supervised part images are near enough to the real ones. EG3D's schedule is 200,000 at batch 32."""
    rate: float = 2e-3
    """Learning rate of the generator."""
    encoder_rate: float = 5e-4
    """Learning rate of the encoder."""
    discriminator_rate: float = 2e-3
    """Learning rate of the discriminator."""
    warm_up: int = 200
    """Steps of linear warm-up after a start without optimiser moments."""
    penalty_every: int = 16
    """Steps between gradient penalties."""
    shown: int = 8
    """Held-out heads measured and shown during training."""
    save_every: float = 240.0
    """Seconds between saves."""
    cool_down: float = 0.25
    """Last share of the run during which the rates fall to a tenth; the next run starts at the full ones."""
    average_images: int = 20_000
    """Half-life of the running averages of weights and of the latents' Gaussian, images."""
    clip: float = 50.0
    """Limit on the norm of the generator's gradient."""
    seed: int = 0
    """Seed of initial weights, cameras and batches."""
    capture: bool = True
    """Use CUDA graphs where possible."""
    max_steps: int | None = None
    """Stop after this many steps of this run."""


class Stopper:
    """Turns Ctrl-C and termination into a flag, so that a step is never cut in half; who sees the flag
    saves and raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self._previous = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, *_: object) -> None:
        self.asked = True

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def my_seeds(first: int, ranks: Ranks) -> Iterator[int]:
    """Head seeds of this process: the processes share the training range without overlap."""
    return itertools.count(first + ranks.rank, ranks.size)


def train(
    config: TrainConfig,
    folder: Path,
    *,
    device: str | None = None,
    resume: Path | None = None,
    prior: Path | None = None,
) -> dict:
    """Train into `folder` and return the last figures.

    Goes on from `folder` when it holds a state, else from `resume` (a state folder elsewhere, which may
    leave generator and encoder to `prior`, the folder of a published one), else starts anew. Raises
    UserError for an unknown preset, a batch that is no multiple of 8 or a count below 1, FileFormatError
    for a damaged state, and KeyboardInterrupt after Ctrl-C, when everything is saved.
    """
    if config.preset not in PRESETS:
        raise UserError(f"unknown preset '{config.preset}'; choose one of {', '.join(PRESETS)}")
    if config.batch < 8 or config.batch % 8:
        raise UserError(f"--batch {config.batch}: use a multiple of 8")
    for name in ("heads", "views"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name} {getattr(config, name)}: choose at least 1")
    ranks = join(device)
    stopper = Stopper()
    try:
        return _Run(config, folder, ranks, stopper, resume, prior).go()
    finally:
        stopper.restore()
        leave()


class _Run:
    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        ranks: Ranks,
        stopper: Stopper,
        resume: Path | None,
        prior: Path | None,
    ):
        self.config, self.folder, self.ranks, self.stopper = config, folder, ranks, stopper
        self.started = time.monotonic()
        device = ranks.device
        cuda = device.type == "cuda"
        if cuda:
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        shape = PRESETS[config.preset]
        self.networks = Networks(shape, device, config.seed)
        nets = self.networks
        nets.generator.backbone.mapping.requires_grad_(False)  # made from the latents' Gaussian
        drawing = [p for p in nets.generator.parameters() if p.requires_grad]
        self.trained = drawing + parameters_of(nets.encoder)
        self.judging = parameters_of(nets.discriminator)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": torch.optim.Adam(
                [
                    {"params": drawing, "lr": config.rate},
                    {"params": parameters_of(nets.encoder), "lr": config.encoder_rate},
                ],
                betas=(0.5, 0.99),
                eps=1e-12,
                fused=cuda,
            ),
            "discriminator": torch.optim.Adam(
                self.judging, lr=config.discriminator_rate, betas=(0.0, 0.99), eps=1e-8, fused=cuda
            ),
        }
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["base"] = group["lr"]
        self.progress, moments = state.Progress(next_seed=TRAIN_SEEDS.start), False
        source = folder if (folder / state.DESCRIPTION).exists() else resume
        if source is not None:
            self.progress, moments = state.load(source, nets, self.optimizers, prior)
            self._say(f"resuming {source} at {self.progress.images:,} images")
        self.progress.runs += 1
        self.warm = config.warm_up if not moments else 0
        torch.manual_seed(config.seed + 1000 * self.progress.runs + ranks.rank)
        self.rng = torch.Generator(device).manual_seed(
            config.seed + 7919 * self.progress.runs + 104729 * ranks.rank
        )
        default = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
        dtype = torch.bfloat16 if cuda else torch.float32
        perceptual = load_perceptual("squeeze-feat", str(device))
        taps = blur_taps(self._sigma()).to(device) if config.blur_images else None
        self.steps = Steps(nets, perceptual, Weights(), dtype, default, taps)
        captured = lambda step, parameters: CapturedStep(step, parameters, capture=cuda and config.capture)  # noqa: E731
        self.supervised = captured(self.steps.supervised, self.trained)
        self.adversarial = captured(self.steps.adversarial, self.trained)
        self.judge = captured(self.steps.judge, self.judging)
        self.judge_with_penalty = captured(
            lambda judged: self.steps.judge_with_penalty(judged, config.penalty_every), self.judging
        )
        self.pool = Pool(config.heads, config.views, shape.img_resolution, device)
        self.log = monitor.Log(folder / "log.jsonl" if ranks.leads else None)

    def _say(self, line: str) -> None:
        if self.ranks.leads:
            say(line)

    def _render(self, seconds: float, heads: int | None = None) -> None:
        seeds = my_seeds(self.progress.next_seed, self.ranks)
        start = time.monotonic()
        count = self.pool.render(seeds, seconds, self.rng, heads)
        # all processes move on by the largest share, so no seed is ever used twice
        most = torch.tensor([count], device=self.ranks.device)
        if self.ranks.size > 1:
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        self.progress.next_seed += int(most) * self.ranks.size
        spent = time.monotonic() - start
        self._say(
            f"rendered {count} heads x {self.config.views} views in {spent:.0f} s per process "
            f"({count * self.config.views / max(spent, 1e-9):.0f} images/s), {self.pool.gigabytes:.1f} GB"
        )

    def _set_rates(self, step: int) -> None:
        factor = min(1.0, (step + 1) / self.warm) if self.warm else 1.0
        left = 1 - (time.monotonic() - self.started) / (self.config.minutes * 60)
        if left < self.config.cool_down:
            factor *= 0.1 + 0.9 * max(left, 0.0) / self.config.cool_down
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor

    def _sigma(self) -> float:
        """Blur of what the discriminator sees, pixels."""
        left = 1 - self.progress.adversarial_images / max(self.config.blur_images, 1)
        return BLUR * max(left, 0.0)

    def _over(self, step: int) -> bool:
        late = time.monotonic() - self.started > self.config.minutes * 60
        full = self.config.max_steps is not None and step >= self.config.max_steps
        if self.ranks.size > 1 and step % 20 and not full:
            return False  # the processes compare their clocks now and then only
        return bool(agree(float(late or full or self.stopper.asked), self.ranks))

    def go(self) -> dict:
        """Render, train until the time is up, save."""
        config, progress = self.config, self.progress
        self._render(config.first_render, config.heads)
        images = config.batch * self.ranks.size
        decay = 0.5 ** (images / config.average_images)
        refreshed = logged = saved = time.monotonic()
        step = 0
        figures: dict[str, float | int] = {}
        sums: dict[str, Tensor] = {}
        since = 0
        while not self._over(step):
            self._set_rates(step)
            out = self._step(progress.images >= config.supervised_images)
            progress.images += images
            progress.steps += 1
            self.networks.average(min(decay, 1 - 1 / (progress.steps + 1)))
            self._follow_latents(out["mean"], out["square"], step)
            for name, value in out.items():
                if value.ndim == 0:
                    sums[name] = sums[name] + value if name in sums else value.clone()
            step += 1
            since += 1
            if step % 50 == 0 or step == 1:
                figures = {name: float(value) / since for name, value in sums.items()}
                now = time.monotonic()
                speed = since * images / (now - logged)
                logged, sums, since = now, {}, 0
                figures |= {"images": progress.images, "images_per_second": speed}
                self.log.write({**figures, "elapsed": now - self.started, "heads": self.pool.filled})
                if not math.isfinite(figures["pixel"]):
                    raise UserError("training diverged (loss is not finite); lower --rate and resume")
            if step % 1000 == 0 and self.ranks.leads:
                self._look(f"{progress.images // 1000:06d}")
            if agree_due(time.monotonic() - refreshed > config.refresh_every, step, self.ranks):
                self._render(config.refresh_render)
                refreshed = logged = time.monotonic()
            if agree_due(time.monotonic() - saved > config.save_every, step, self.ranks):
                self._save()
                saved = logged = time.monotonic()
        self._save()
        if self.stopper.asked:
            self._say(f"saved {progress.images:,} images in {self.folder}")
            raise KeyboardInterrupt
        if self.ranks.leads:
            figures |= self._look("last")
        return figures | asdict(progress)

    def _follow_latents(self, mean: Tensor, square: Tensor, step: int) -> None:
        """Keep the Gaussian of the encoder's latents: over all processes and about 20,000 images."""
        latents, size = self.networks.latents, self.ranks.size
        both = torch.cat([mean[None], square])
        if size > 1:
            torch.distributed.all_reduce(both)
        images = self.config.batch * size
        decay = 0.5 ** (images / self.config.average_images)
        latents.follow(both[0] / size, both[1:] / size, min(decay, 1 - 1 / (self.progress.steps + 1)))
        if step % 20 == 0:
            latents.refresh()

    def _save(self) -> None:
        spent = time.monotonic() - self.started
        if self.ranks.leads:
            progress = replace(self.progress, seconds=self.progress.seconds + spent)
            state.save(self.folder, self.networks, progress, self.optimizers, full=True)

    def _step(self, adversarial: bool) -> dict[str, Tensor]:
        config, batch = self.config, self.pool.draw(self.config.batch, self.rng)
        if self.steps.taps is not None:
            self.steps.taps.copy_(blur_taps(self._sigma()))
        out = (self.adversarial if adversarial else self.supervised)(batch)
        norm = settle_gradients(self.trained, self.ranks, config.clip)
        self.optimizers["generator"].step()
        out = {**out, "norm": norm}
        if adversarial:
            self.progress.adversarial_images += config.batch * self.ranks.size
            judged = _judged(batch, out)
            due = self.progress.steps % config.penalty_every == 0
            verdict = (self.judge_with_penalty if due else self.judge)(judged)
            settle_gradients(self.judging, self.ranks, math.inf)
            self.optimizers["discriminator"].step()
            out |= {name: value for name, value in verdict.items() if name != "r1"}
        return out

    def _look(self, name: str) -> dict[str, float | int]:
        figures = monitor.look(
            self.networks, self.pool, self.folder / "sheets" / f"{name}.png", self.config.shown
        )
        self.log.write({"images": self.progress.images, **figures})
        return figures


def agree_due(due: bool, step: int, ranks: Ranks) -> bool:
    """Whether something timed is due, decided by the first process at every 20th step."""
    return step % 20 == 0 and bool(agree(float(due), ranks))


def _judged(batch: Batch, out: dict[str, Tensor]) -> Judged:
    return Judged(batch.real, batch.real_camera, out["image"], out["image_raw"], out["camera"])
