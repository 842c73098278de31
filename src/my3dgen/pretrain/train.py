"""Training a prior, on a CPU, one GPU or many: on synthetic heads, or on a folder of pictures with cameras.

Ctrl-C or the end of the time saves everything; the same command goes on from there. Every step draws from
random numbers of its own, the same in all processes (see `shares`), so N processes train as one with N times
the batch, and a training that was stopped goes on as if it had not been. On synthetic heads this holds but
for the heads themselves: every process renders its own, as many as there is time for.
"""

import math
import signal
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from my3dgen.errors import UserError
from my3dgen.pretrain import monitor, state
from my3dgen.pretrain.heads import HeadTraining
from my3dgen.pretrain.parallel import Ranks, agree, join, leave, mean_over
from my3dgen.pretrain.pictures import PictureTraining
from my3dgen.pretrain.settings import TrainConfig
from my3dgen.pretrain.shares import Shared
from my3dgen.progress import say
from my3dgen.synthetic.factors import TRAIN_SEEDS


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
    UserError for values out of range and for a state of the other kind, FileFormatError for a damaged state
    or dataset, and KeyboardInterrupt after Ctrl-C, when everything is saved.
    """
    config.check()
    source = folder if (folder / state.DESCRIPTION).exists() else resume
    if source is not None:
        state.check_kind(source, config.kind)
    if config.tensorboard:
        monitor.check_tensorboard()
    ranks = join(device)
    stopper = Stopper()
    try:
        return _Run(config, folder, ranks, stopper, source, prior).go()
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
        source: Path | None,
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
        self.training: HeadTraining | PictureTraining
        if config.data is None:
            self.training = HeadTraining(config, ranks)
        else:
            self.training = PictureTraining(config, ranks, folder, lambda: stopper.asked)
        self.networks, self.optimizers = self.training.networks, self.training.optimizers
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["base"] = group["lr"]
        self.progress, moments = state.Progress(next_seed=TRAIN_SEEDS.start), False
        if source is not None:
            self.progress, moments = state.load(source, self.networks, self.optimizers, prior)
            self._say(f"resuming {source} at {self.progress.images:,} images")
        self.progress.runs += 1
        self.warm = config.warm_up if not moments else 0
        self.rng = torch.Generator(device)
        self.default = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
        board = folder / "tensorboard" if config.tensorboard else None
        self.log = monitor.Log(folder / "log.jsonl" if ranks.leads else None, board)

    def _say(self, line: str) -> None:
        if self.ranks.leads:
            say(line)

    def _set_rates(self, step: int) -> None:
        factor = min(1.0, (step + 1) / self.warm) if self.warm else 1.0
        left = self._left()
        if left < self.config.cool_down:
            factor *= 0.1 + 0.9 * max(left, 0.0) / self.config.cool_down
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor

    def _left(self) -> float:
        """How much of the run is left, or of its first part while that lasts; less than 0 after its time."""
        spent = (time.monotonic() - self.started) / (self.config.minutes * 60)
        share = self.config.encoder_share
        return (1 - spent) / share if self.training.alone else (1 - share - spent) / (1 - share)

    def _settle(self, step: int) -> None:
        """Let the encoder learn alone once it is time."""
        share = self.config.encoder_share
        if self.training.alone or not share or isinstance(self.training, PictureTraining):
            return
        if agree_due(share == 1 or self._left() <= 0, step, self.ranks):
            self.training.settle()
            self._say(f"the encoder learns alone from {self.progress.images:,} images on")

    def _over(self, step: int) -> bool:
        late = time.monotonic() - self.started > self.config.minutes * 60
        full = self.config.max_steps is not None and step >= self.config.max_steps
        if self.ranks.size > 1 and step % 20 and not full:
            return False  # the processes compare their clocks now and then only
        return bool(agree(float(late or full or self.stopper.asked), self.ranks))

    def go(self) -> dict:
        """Prepare the data, train until the time is up, save."""
        config, progress, training = self.config, self.progress, self.training
        training.prepare(progress)
        images = config.batch * self.ranks.size
        refreshed = logged = saved = time.monotonic()
        step = since = 0
        figures: dict[str, float | int] = {}
        sums: dict[str, tuple[Tensor, int]] = {}
        while not self._over(step):
            self._settle(step)
            self._set_rates(step)
            out = self._step()
            progress.images += images
            progress.steps += 1
            self.networks.average(training.decay(progress))
            for name, value in out.items():
                if value.ndim == 0:
                    total, count = sums.get(name, (0.0, 0))
                    sums[name] = (value + total, count + 1)
            step += 1
            since += 1
            if step % config.log_every == 0 or step == 1:
                means = {name: total / count for name, (total, count) in sums.items()}
                figures = {name: mean_over(mean, self.ranks) for name, mean in means.items()}
                now = time.monotonic()
                speed = since * images / (now - logged)
                logged, sums, since = now, {}, 0
                figures |= {"images": progress.images, "images_per_second": speed}
                self.log.write({**figures, "elapsed": now - self.started, **training.facts})
                if not math.isfinite(figures[training.watched]):
                    raise UserError("training diverged (loss is not finite); lower --rate and resume")
            if step % config.look_every == 0 and self.ranks.leads:
                self._look(f"{progress.images // 1000:06d}")
            if agree_due(time.monotonic() - refreshed > config.refresh_every, step, self.ranks):
                training.refresh(progress)
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
        self.log.close()
        return figures | asdict(progress)

    def _step(self) -> dict[str, Tensor]:
        """A step with the random numbers that belong to it, whichever run it is in."""
        seed = (self.config.seed << 40) + 2 * self.progress.steps
        self.default.manual_seed(seed)
        self.rng.manual_seed(seed + 1)
        alone = self.ranks.size == 1
        with nullcontext() if alone else Shared(self.ranks.rank, self.ranks.size, self.config.batch):
            return self.training.step(self.progress, self.rng)

    def _save(self) -> None:
        spent = time.monotonic() - self.started
        if self.ranks.leads:
            progress = replace(self.progress, seconds=self.progress.seconds + spent)
            state.save(self.folder, self.networks, progress, self.optimizers, full=True)

    def _look(self, name: str) -> dict[str, float | int]:
        path = self.folder / "sheets" / f"{name}.png"
        figures = self.training.look(path)
        if figures:
            self.log.write({"images": self.progress.images, **figures})
        self.log.show("sheet", path, self.progress.images)
        return figures


def agree_due(due: bool, step: int, ranks: Ranks) -> bool:
    """Whether something timed is due, decided by the first process at every 20th step."""
    return step % 20 == 0 and bool(agree(float(due), ranks))
