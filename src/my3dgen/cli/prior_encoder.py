"""`my3dgen prior encoder`: train an encoder for a prior, so that inversion starts from what it sees."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class PriorEncoder(Verb):
    """Train an encoder for a prior on faces that the prior itself draws.

    my3dgen prior encoder ffhq --minutes 60

    The encoder joins the prior if it reproduces held-out faces better than the one there was, or than the
    mean latent. The same command trains it further.
    """

    prior: Positional[str]
    """Name or folder of the prior."""
    minutes: float = 30.0
    """Time for this run, rendering included."""
    out: Path | None = None
    """Folder for the encoder and for the training's state, log and sheets. By default the encoder goes into
    the prior's folder and the rest into PRIOR.encoder beside it. The package's own prior is left as it is and
    needs one."""
    batch: int = 32
    """Pictures per step."""
    pool: int = 512
    """Faces kept in memory, each from two sides."""
    held_out: int = 32
    """Faces that judge the encoder and are not learned from."""
    rate: float = 5e-4
    """Learning rate."""
    seed: int = 0
    """Which faces."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    capture: bool = True
    """Use a CUDA graph."""
    max_steps: int | None = None
    """Stop after this many steps; 0 only measures, and keeps the encoder if it is better."""

    def run(self) -> dict:
        """Train until the time is up or Ctrl-C, then save, measure and keep the better encoder."""
        from my3dgen.cli.device import chosen_device
        from my3dgen.errors import UserError
        from my3dgen.pretrain.encode import EncodeConfig, train_encoder, write_encoder
        from my3dgen.prior.store import CONFIG, EMBEDDED, find_prior, load_prior, read_encoder

        folder = find_prior(self.prior).resolve()
        place = folder if self.out is None else self.out
        if place.resolve().parent == EMBEDDED:
            raise UserError(
                f"prior '{self.prior}' is the package's own; give --out FOLDER, or use a copy of {folder}"
            )
        if place.exists() and not place.is_dir():
            raise UserError(f"--out {place} is a file; name a folder")
        if place.resolve() != folder and (place / CONFIG).is_file():
            raise UserError(f"--out {place} is another prior; give a folder for the training")
        device = chosen_device(self.device)
        prior = load_prior(folder, device)
        rival = read_encoder(place, prior.config, device) or prior.encoder
        config = EncodeConfig(
            minutes=self.minutes,
            batch=self.batch,
            pool=self.pool,
            held_out=self.held_out,
            rate=self.rate,
            seed=self.seed,
            capture=self.capture,
            max_steps=self.max_steps,
        )
        work = folder.with_name(f"{folder.name}.encoder") if self.out is None else self.out
        outcome = train_encoder(prior, work, config, rival)
        written = str(write_encoder(place, outcome.encoder)) if outcome.better else None
        if not self.json:
            before = "the mean latent" if rival is None else "the encoder there was"
            print(
                f"{outcome.after:.2f} dB over {self.held_out} held-out faces, "
                f"{outcome.before:.2f} dB with {before}"
            )
            print(written or "not better, so nothing was written; the same command trains it further")
        return {
            "encoder": written,
            "before": outcome.before,
            "after": outcome.after,
            "held_out": outcome.figures,
            "images": outcome.progress.images,
            "training": str(work),
        }

    def goes_on(self) -> bool:
        """It does."""
        return True
