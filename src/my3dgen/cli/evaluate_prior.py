"""`my3dgen evaluate prior`: what a prior can show, what its encoder sees, what it makes up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class EvaluatePrior(Verb):
    """Judge a prior by synthetic heads that no training has seen.

    my3dgen evaluate prior mini --identities 20 --out out/mini

    With --out finished stages are kept: the same command goes on.
    """

    prior: Positional[str] = "mini"
    """Name or folder of the prior."""
    identities: int = 200
    """Heads to invert."""
    samples: int = 1000
    """Heads to draw from the prior, and as many true ones to compare them with."""
    steps: int = 500
    """Optimisation steps of an inversion; on a CPU a step takes about a second a head."""
    seed: int = 0
    """Which heads, cameras and samples."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Folder for the report and its pictures; without one only figures are made."""
    batch: int | None = None
    """Heads at once; by default 4 on a CPU, 64 on a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    def run(self) -> dict:
        """Evaluate; returns the report."""
        from functools import partial

        from my3dgen.cli.device import chosen_device
        from my3dgen.errors import UserError
        from my3dgen.evaluate.prior import Examination, evaluate_prior
        from my3dgen.evaluate.prior_report import table
        from my3dgen.pretrain.pool import draw_cameras
        from my3dgen.prior.store import load_prior

        asked = Examination(
            identities=self.identities,
            samples=self.samples,
            steps=self.steps,
            batch=self.batch,
            seed=self.seed,
        )
        asked.check()
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out} is a file; name a folder")
        prior = load_prior(self.prior, chosen_device(self.device))
        config = prior.config
        cameras = partial(
            draw_cameras, radius=config.camera_radius, pivot=config.camera_pivot, focal=config.focal
        )
        report = evaluate_prior(prior, asked, cameras, self.out)
        if not self.json:
            print(table(report))
            if self.out is not None:
                print(f"look at {self.out / 'report.html'}")
        return report

    def goes_on(self) -> bool:
        """It does, with a folder to keep finished stages in."""
        return self.out is not None
