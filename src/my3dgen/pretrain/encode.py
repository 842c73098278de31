"""Training an encoder for a frozen prior on the prior's own faces, on a CPU or one GPU.

The latents and cameras of those faces are known, so the encoder learns them directly, and on a part of every
batch also to reproduce pictures through the generator. Faces that change to another's at some layer teach
it the offsets of W+. Ctrl-C or the end of the time saves everything; the same command goes on from there.
"""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from my3dgen.errors import UserError
from my3dgen.graphs import CapturedStep
from my3dgen.int8 import from_int8, to_int8
from my3dgen.perceptual import load_perceptual
from my3dgen.precision import has_fast_bfloat16
from my3dgen.pretrain import encode_monitor as monitor
from my3dgen.pretrain.encode_lesson import Unit, Weights, lesson_terms
from my3dgen.pretrain.encode_state import STATE, Progress, load_state, save_state
from my3dgen.pretrain.monitor import Log
from my3dgen.pretrain.networks import follow
from my3dgen.pretrain.parallel import Ranks, settle_gradients
from my3dgen.pretrain.samples import Lesson, SamplePool, seed_of
from my3dgen.pretrain.train import Stopper
from my3dgen.prior.encoder import Encoder, encoder_config
from my3dgen.prior.store import CONFIG, ENCODER, Prior, write_sums
from my3dgen.progress import say
from my3dgen.tensor_file import write_tensors

ROUNDING = 1e-3
"""Decibels by which the same encoder may measure otherwise another time."""


@dataclass(frozen=True)
class EncodeConfig:
    """How to train an encoder."""

    minutes: float = 30.0
    """Wall-clock budget of this run, rendering included."""
    batch: int = 32
    """Pictures per step, 4 to 512."""
    fresh: int = 8
    """A step of a batch of this many renders one new face; a face is then drawn about this often."""
    rendered: int = 8
    """One of this many pictures of a batch is also reproduced through the generator."""
    pool: int = 512
    """Faces kept, each from two sides."""
    mixed: float = 0.25
    """Share of the faces that change to another's at some layer."""
    rate: float = 5e-4
    """Learning rate."""
    warm_up: int = 50
    """Steps of linear warm-up of a new training."""
    cool_down: float = 0.25
    """Last share of the run during which the rate falls to a tenth; the next run starts at the full one."""
    average_images: int = 20_000
    """Half-life of the running average of weights, pictures."""
    clip: float = 10.0
    """Limit on the norm of the gradient."""
    held_out: int = 32
    """Faces that judge the encoder and are not learned from."""
    log_every: float = 15.0
    """Seconds between lines of the log."""
    look_every: float = 300.0
    """Seconds between measurements, each with a sheet, and saves."""
    seed: int = 0
    """Which faces."""
    capture: bool = True
    """Use a CUDA graph where possible."""
    max_steps: int | None = None
    """Stop after this many steps of this run; 0 only measures."""


@dataclass(frozen=True)
class Outcome:
    """What a training came to."""

    encoder: Encoder
    """The running average as a file stores it."""
    before: float
    """Decibels of the held-out faces with the encoder there was, or with the mean latent."""
    after: float
    """The same with the new one."""
    figures: dict[str, float]
    """All held-out figures, see `encode_monitor`."""
    progress: Progress

    @property
    def better(self) -> bool:
        """Whether the new encoder is worth keeping."""
        return self.after > self.before + ROUNDING


def new_encoder(prior: Prior, unit: Unit, seed: int) -> Encoder:
    """The encoder that training starts from, in `unit`: the prior's own, or one that knows nothing."""
    if prior.encoder is not None:
        encoder = unit.into(prior.encoder)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = Encoder(encoder_config(prior.config))
        with torch.no_grad():
            encoder.head.weight.mul_(0.1)  # near the mean latent
    encoder = encoder.to(unit.mean.device).requires_grad_(True).train()
    return encoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def train_encoder(prior: Prior, folder: Path, config: EncodeConfig, rival: Encoder | None) -> Outcome:
    """Train on the prior's device, with state, log and sheets in `folder`, and measure.

    `rival` is the encoder to be beaten, None for the mean latent. Goes on from the state in `folder` if
    there is one. Raises UserError for options out of range, a state of another prior or a training that
    diverges, FileFormatError for a damaged state, and KeyboardInterrupt after Ctrl-C, when all is saved.
    """
    if not 0 <= config.minutes < math.inf:
        raise UserError(f"--minutes {config.minutes:g} is out of range; choose 0 or more")
    for name, low, high in (("batch", 4, 512), ("pool", config.batch, 65536), ("held_out", 4, 1024)):
        if not low <= getattr(config, name) <= high:
            option, value = name.replace("_", "-"), getattr(config, name)
            raise UserError(f"--{option} {value} is out of range; choose {low} to {high}")
    if not 0 < config.rate <= 0.1:
        raise UserError(f"--rate {config.rate:g} is out of range; choose more than 0, at most 0.1")
    if config.max_steps is not None and config.max_steps < 0:
        raise UserError(f"--max-steps {config.max_steps} is out of range; choose 0 or more")
    stopper = Stopper()
    try:
        return _Run(prior, folder, config, rival, stopper).go()
    finally:
        stopper.restore()


def stored(encoder: Encoder) -> Encoder:
    """An encoder as it is after being written and read."""
    copied = copy.deepcopy(encoder)
    copied.load_state_dict(from_int8(to_int8(encoder.state_dict())))
    return copied.eval().requires_grad_(False)


def write_encoder(folder: Path, encoder: Encoder) -> Path:
    """Write `encoder.safetensors` in int8 and, if the folder is a prior's, list it in SHA256SUMS."""
    path = folder / ENCODER
    write_tensors(path, to_int8(encoder.state_dict()), {})
    if (folder / CONFIG).is_file():
        write_sums(folder, ENCODER)
    return path


class _Run:
    def __init__(
        self, prior: Prior, folder: Path, config: EncodeConfig, rival: Encoder | None, stopper: Stopper
    ):
        self.started = time.monotonic()
        self.prior, self.folder, self.config, self.stopper = prior, folder, config, stopper
        self.generator = generator = prior.generator
        self.device = device = generator.w_avg.device
        cuda = device.type == "cuda"
        if cuda:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.dtype = dtype = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
        self.unit = Unit.of(generator)
        self.live = new_encoder(prior, self.unit, config.seed)
        self.average = copy.deepcopy(self.live).eval().requires_grad_(False)
        self.parameters: list[Tensor] = list(self.live.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.rate, betas=(0.9, 0.99), fused=cuda)
        self.progress = Progress()
        path = folder / STATE
        if path.exists():
            self.progress = load_state(path, prior.sha256, self.live, self.average, self.optimizer)
            say(f"resuming {path} at {self.progress.images:,} images")
        self.pool = SamplePool(
            generator,
            self.live.config.img_resolution,
            capacity=config.pool,
            chunk=max(1, config.batch // config.fresh),
            mixed=config.mixed,
            seed=config.seed,
            dtype=dtype,
        )
        self.first = -(-config.batch // self.pool.chunk)
        self.rng = torch.Generator(device)
        self.perceptual, self.weights = load_perceptual("squeeze-feat", device), Weights()
        self.step = CapturedStep(self._learn, self.parameters, capture=cuda and config.capture)
        self.log = Log(folder / "log.jsonl")
        side = self.live.config.img_resolution
        say(f"measuring {config.held_out} held-out faces")
        self.held = monitor.hold_out(generator, config.held_out, side, config.seed)
        self.before = monitor.Reproduction.of(generator, self.held, rival, self.unit.mean)

    def _learn(self, lesson: Lesson) -> dict[str, Tensor]:
        terms = lesson_terms(self.live, self.generator, self.unit, self.perceptual, lesson, self.dtype)
        torch.stack([getattr(self.weights, name) * value for name, value in terms.items()]).sum().backward()
        return {name: value.detach() for name, value in terms.items()}

    def _set_rate(self) -> None:
        config = self.config
        factor = min(1.0, (self.progress.steps + 1) / config.warm_up)
        left = 1 - (time.monotonic() - self.started) / max(config.minutes * 60, 1e-9)
        if left < config.cool_down:
            factor *= 0.1 + 0.9 * max(left, 0.0) / config.cool_down
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate * factor

    def _over(self, step: int) -> bool:
        late = time.monotonic() - self.started >= self.config.minutes * 60
        full = self.config.max_steps is not None and step >= self.config.max_steps
        return late or full or self.stopper.asked

    def go(self) -> Outcome:
        """Train until the time is up, save, measure."""
        config, progress = self.config, self.progress
        ranks = Ranks(0, 1, self.device)
        sums: dict[str, Tensor] = {}
        looked = logged = time.monotonic()
        step = since = 0
        while not self._over(step):
            self.pool.reach(self.first + progress.steps)
            self._set_rate()
            self.rng.manual_seed(seed_of("lesson", config.seed, progress.steps))
            lesson = self.pool.draw(config.batch, max(1, config.batch // config.rendered), self.rng)
            out = dict(self.step(lesson))
            out["norm"] = settle_gradients(self.parameters, ranks, config.clip)
            self.optimizer.step()
            progress.steps, progress.images = progress.steps + 1, progress.images + config.batch
            follow(self.average, self.live, _decay(config, progress.images))
            for name, value in out.items():
                sums[name] = sums[name] + value if name in sums else value.clone()
            step, since, now = step + 1, since + 1, time.monotonic()
            if now - logged > config.log_every or step == 1:
                self._log(sums, since, now - logged)
                logged, since, sums = now, 0, {}
            if now - looked > config.look_every:
                self._save()
                self._look(self.average, f"{progress.images // 1000:06d}")
                looked = logged = time.monotonic()
                since, sums = 0, {}
        if step:
            self._save()
        if self.stopper.asked:
            say(f"saved {progress.images:,} images in {self.folder}")
            raise KeyboardInterrupt
        encoder = stored(self.unit.out_of(self.average))
        figures, after = self._look(encoder, "last")
        return Outcome(encoder, self.before.decibels, after.decibels, figures, progress)

    def _log(self, sums: Mapping[str, Tensor], steps: int, seconds: float) -> None:
        figures = {name: float(value) / steps for name, value in sums.items()}
        if not all(map(math.isfinite, figures.values())):
            raise UserError("training diverged (loss is not finite); lower --rate and run again")
        speed = steps * self.config.batch / max(seconds, 1e-9)
        self.log.write({**figures, "images": self.progress.images, "images_per_second": speed})

    def _look(self, encoder: Encoder, name: str) -> tuple[dict[str, float], monitor.Reproduction]:
        """Measure an encoder (the running average, in the training's unit, or the final one) and draw it."""
        told = self.unit.out_of(encoder) if encoder is self.average else encoder
        now = monitor.Reproduction.of(self.generator, self.held, told, self.unit.mean)
        figures = {f"before_{k}": v for k, v in self.before.figures().items()} | now.figures()
        self.log.write({"images": self.progress.images, **figures})
        monitor.draw(self.held, self.before, now, self.folder / "sheets" / f"{name}.png")
        return figures, now

    def _save(self) -> None:
        done = asdict(self.progress)
        save_state(self.folder / STATE, self.prior.sha256, done, self.live, self.average, self.optimizer)


def _decay(config: EncodeConfig, images: int) -> float:
    """What the running average keeps: over the last tenth at first, then over `average_images`."""
    return 0.5 ** (config.batch / min(config.average_images, 0.1 * images))
