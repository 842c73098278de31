"""`my3dgen prior train`: a prior from synthetic heads, on a CPU, one GPU or many."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class PriorTrain(Verb):
    """Train a prior on procedural heads, rendered while it trains.

    The folder holds the generator, the encoder and the discriminator; the same command goes on from it.
    On several GPUs: torchrun --standalone --nproc-per-node N -m my3dgen prior train ...
    """

    out: Path
    """Folder for the training state, log and sample sheets."""
    preset: str = "mini"
    """Configuration of the generator: mini, tiny or ffhq512-128."""
    minutes: float = 10.0
    """Time for this run, rendering included."""
    resume: Path | None = None
    """A training state elsewhere to start from when OUT holds none."""
    prior: str | None = None
    """A published prior that gives what RESUME lacks of generator and encoder."""
    batch: int = 32
    """Images per step and process."""
    heads: int = 12000
    """Heads kept in memory per process."""
    views: int = 4
    """Views rendered of each head."""
    first_render: float = 90.0
    """Seconds of rendering before the first step."""
    refresh_every: float = 240.0
    """Seconds between renderings of new heads."""
    refresh_render: float = 30.0
    """Seconds of each such rendering."""
    supervised_images: int = 600_000
    """Images before the discriminator joins."""
    blur_images: int = 0
    """Images over which a blur of what the discriminator sees fades; 0 for none."""
    rate: float = 2e-3
    """Learning rate of the generator; the others keep their ratio to it."""
    cool_down: float = 0.25
    """Last share of the run during which the rates fall to a tenth."""
    seed: int = 0
    """Seed of initial weights, cameras and batches."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    capture: bool = True
    """Use CUDA graphs."""
    max_steps: int | None = None
    """Stop after this many steps."""

    def run(self) -> dict:
        """Train until the time is up or Ctrl-C, then save."""
        from my3dgen.cli.device import chosen_device
        from my3dgen.pretrain.train import TrainConfig, train
        from my3dgen.prior.store import find_prior

        ratio = self.rate / TrainConfig.rate
        config = TrainConfig(
            preset=self.preset,
            minutes=self.minutes,
            batch=self.batch,
            heads=self.heads,
            views=self.views,
            first_render=self.first_render,
            refresh_every=self.refresh_every,
            refresh_render=self.refresh_render,
            supervised_images=self.supervised_images,
            blur_images=self.blur_images,
            rate=self.rate,
            encoder_rate=TrainConfig.encoder_rate * ratio,
            discriminator_rate=TrainConfig.discriminator_rate * ratio,
            cool_down=self.cool_down,
            seed=self.seed,
            capture=self.capture,
            max_steps=self.max_steps,
        )
        return train(
            config,
            self.out,
            device=None if self.device == "auto" else chosen_device(self.device),
            resume=self.resume,
            prior=None if self.prior is None else find_prior(self.prior),
        )

    def goes_on(self) -> bool:
        """It does."""
        return True
