"""How to train a prior, as data."""

from dataclasses import dataclass
from pathlib import Path

from my3dgen.config import PRESETS
from my3dgen.errors import UserError


@dataclass(frozen=True)
class TrainConfig:
    """How to train a prior."""

    preset: str = "mini"
    """Name of the generator's configuration."""
    data: Path | None = None
    """Folder of a dataset in EG3D's format to train on; None for synthetic heads."""
    minutes: float = 10.0
    """Wall-clock budget of this run, rendering included."""
    batch: int = 32
    """Images per step and process; a multiple of 8."""
    rate: float | None = None
    """Learning rate of the generator; the others keep their ratio to it. None is 0.002 on synthetic heads,
    0.0025 on pictures."""
    blur_images: int | None = None
    """Images over which the blur of what the discriminator sees fades; 0 for none. None is EG3D's schedule on
    pictures, 200,000 at a whole batch of 32, and none on synthetic heads: after the supervised part images
    are near enough to the real ones."""
    heads: int = 12000
    """Synthetic heads kept in memory per process."""
    views: int = 4
    """Views rendered of each head."""
    first_render: float = 90.0
    """Seconds of rendering before the first step."""
    refresh_every: float = 240.0
    """Seconds of training between renderings of new heads."""
    refresh_render: float = 30.0
    """Seconds of each such rendering."""
    supervised_images: int = 600_000
    """Images of synthetic heads before the discriminator joins."""
    r1: float = 1.0
    """Weight of the discriminator's gradient penalty (gamma); small batches and small datasets need more."""
    swap: float = 0.5
    """How often the mapping sees another camera than the one that renders, in the end. For pictures."""
    swap_images: int = 1_000_000
    """Images over which this falls from always."""
    memory: float = 8.0
    """GB of decoded pictures kept on the device; a larger dataset is kept in a file beside the state."""
    warm_up: int = 200
    """Steps of linear warm-up after a start without optimiser moments."""
    penalty_every: int = 16
    """Steps between gradient penalties."""
    shown: int = 8
    """Faces measured and shown during training."""
    log_every: int = 50
    """Steps between lines of the log."""
    look_every: int = 1000
    """Steps between sheets."""
    save_every: float = 240.0
    """Seconds between saves."""
    cool_down: float = 0.25
    """Last share of the run during which the rates fall to a tenth; the next run starts at the full ones."""
    encoder_share: float = 0.0
    """Last share of the run, from 0 to 1, in which only the encoder learns; the generator is then its running
    average and stays. On synthetic heads."""
    average_images: int = 20_000
    """Half-life of the running averages of weights and of the latents' Gaussian, in images of heads."""
    clip: float = 50.0
    """Limit on the norm of the generator's gradient on synthetic heads."""
    seed: int = 0
    """Seed of initial weights, cameras and batches."""
    capture: bool = True
    """Use CUDA graphs where possible."""
    tensorboard: bool = False
    """Write for TensorBoard, too."""
    max_steps: int | None = None
    """Stop after this many steps of this run."""

    def check(self) -> None:
        """Raise UserError for an unknown preset and for values out of range."""
        if self.preset not in PRESETS:
            raise UserError(f"unknown preset '{self.preset}'; choose one of {', '.join(PRESETS)}")
        if self.batch < 8 or self.batch % 8:
            raise UserError(f"--batch {self.batch}: use a multiple of 8")
        for name in ("heads", "views"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: choose at least 1")
        for name in ("r1", "memory"):
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name} {getattr(self, name)}: choose 0 or more")
        for name in ("swap", "encoder_share"):
            if not 0 <= getattr(self, name) <= 1:
                option = name.replace("_", "-")
                raise UserError(f"--{option} {getattr(self, name)}: choose a number from 0 to 1")
        if self.encoder_share and self.data is not None:
            raise UserError("--encoder-share: --data has no encoder; use my3dgen prior encoder afterwards")

    @property
    def kind(self) -> str:
        """What the prior is trained on: "heads" or "pictures"."""
        return "heads" if self.data is None else "pictures"
