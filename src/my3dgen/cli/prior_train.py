"""`my3dgen prior train`: a prior from synthetic heads or a folder of pictures, on a CPU, one GPU or many."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class PriorTrain(Verb):
    """Train a prior on procedural heads, rendered while it trains, or on your own dataset.

    The folder holds the networks; the same command goes on from it.
    On several GPUs: torchrun --standalone --nproc-per-node N -m my3dgen prior train ...
    """

    out: Path
    """Folder for the training state, log and sample sheets."""
    preset: str = "mini"
    """Configuration of the generator: mini, tiny or ffhq512-128."""
    data: Path | None = None
    """Train on this dataset in EG3D's format (square pictures and dataset.json), not on procedural heads."""
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
    """Images of procedural heads before the discriminator joins."""
    r1: float = 1.0
    """Weight of the discriminator's gradient penalty; few pictures or small batches need more, up to 20."""
    swap: float = 0.5
    """How often the mapping sees another camera than the picture's, in the end. For --data."""
    memory: float = 8.0
    """GB of decoded pictures kept on the device; more are kept in a file in OUT. For --data."""
    blur_images: int | None = None
    """Images over which a blur of what the discriminator sees fades; 0 for none. By default none, and
    200,000 at a whole batch of 32 with --data."""
    rate: float | None = None
    """Learning rate of the generator; the others keep their ratio to it. By default 0.002, and 0.0025 with
    --data."""
    cool_down: float = 0.25
    """Last share of the run during which the rates fall to a tenth."""
    encoder_share: float = 0.0
    """Last share of the run, from 0 to 1, in which only the encoder learns."""
    seed: int = 0
    """Seed of initial weights, cameras and batches."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    capture: bool = True
    """Use CUDA graphs."""
    tensorboard: bool = False
    """Write figures and sheets for TensorBoard to OUT/tensorboard, too."""
    max_steps: int | None = None
    """Stop after this many steps."""

    def run(self) -> dict:
        """Train until the time is up or Ctrl-C, then save."""
        from dataclasses import fields

        from my3dgen.cli.device import chosen_device
        from my3dgen.pretrain.settings import TrainConfig
        from my3dgen.pretrain.train import train
        from my3dgen.prior.store import find_prior

        given = {field.name for field in fields(TrainConfig)} & {field.name for field in fields(self)}
        return train(
            TrainConfig(**{name: getattr(self, name) for name in given}),
            self.out,
            device=None if self.device == "auto" else chosen_device(self.device),
            resume=self.resume,
            prior=None if self.prior is None else find_prior(self.prior),
        )

    def goes_on(self) -> bool:
        """It does."""
        return True
