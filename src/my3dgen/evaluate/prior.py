"""How good a prior is, in figures: what it can show, what its encoder sees, and what it makes up.

Held-out synthetic heads, one picture each from an exact camera (`prior_people` has the rule of seeds), are
inverted in three ways: by the encoder alone, by 50 steps from there, and by many steps from the mean latent.
Each result is drawn from the source's camera and from cameras 15, 30 and 45 degrees to both sides of it, and
compared with the true views; a figure of a view is the mean of both sides. PSNR counts the head's own
pixels. Samples of the prior are compared with pictures of other held-out heads (`prior_samples`).

It judges priors of synthetic heads; the truth is drawn on white, in those heads' world.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen import __version__
from my3dgen.errors import UserError
from my3dgen.evaluate.inversion import InversionRule, invert_wplus
from my3dgen.evaluate.metrics import IDENTITY_NETWORK, PERCEPTUAL_NETWORK, load_judge
from my3dgen.evaluate.prior_groups import by_group, worst_group
from my3dgen.evaluate.prior_people import (
    MOST_HEADS,
    MOST_SEEDS,
    TURNS,
    People,
    gather,
    inverted_seeds,
    offsets,
    photograph_people,
    together,
)
from my3dgen.evaluate.prior_samples import (
    PSI,
    DrawCameras,
    Latents,
    batches,
    draw_latents,
    evenness,
    latency,
    likeness_of_sets,
    smiles,
)
from my3dgen.evaluate.stages import Stages, write_json
from my3dgen.latents import latent_statistics
from my3dgen.losses import shrink
from my3dgen.perceptual import load_perceptual
from my3dgen.prior.encoder import Encoder
from my3dgen.prior.store import DIRECTIONS, ENCODER, Prior, read_sums
from my3dgen.progress import track
from my3dgen.synthetic.factors import NUM_FACTORS, sample_factors
from my3dgen.tensor_file import read_tensors, write_tensors

BATCH = {"cpu": 4, "cuda": 64}
FEW_STEPS = 50
"""Steps that correct what the encoder sees."""
FEWEST_SAMPLES = 4
MAX_LATENTS_BYTES = 1 << 30
WAYS = ("inversion", "encoder", "encoder50")
DEPTH_SIDE = 64

Table = dict[str, dict[str, list[float]]]
"""view ("0", "-15", "+15", ...) -> figure -> one value a head."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What is asked of a prior."""

    identities: int = 200
    """Heads to invert."""
    samples: int = 1000
    """Heads drawn from the prior, and as many true ones to compare them with."""
    steps: int = 500
    """Optimisation steps of an inversion."""
    batch: int | None = None
    """Heads at once; None chooses by device."""
    seed: int = 0
    """Which heads, cameras and samples."""

    def check(self) -> None:
        """Raises UserError for a number out of range."""
        limits = {
            "identities": (1, MOST_HEADS),
            "samples": (FEWEST_SAMPLES, MOST_HEADS),
            "steps": (1, 100_000),
            "batch": (1, 4096),
            "seed": (0, MOST_SEEDS - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"--{name} {value} is out of range; choose {low} to {high}")


def evaluate_prior(
    prior: Prior, asked: Examination, draw_cameras: DrawCameras, out: Path | None = None
) -> dict[str, Any]:
    """All figures of a prior as JSON; with `out` also report.json, report.html and pictures in that folder.

    `draw_cameras` are those of the prior's training. Finished stages are kept in `out`, so that a stopped
    evaluation goes on. Raises UserError for a prior that does not draw heads on white, or a number out of
    range.
    """
    asked.check()
    if not prior.config.white_back:
        raise UserError(
            f"prior '{prior.name}' does not draw heads on white, so it can't be compared with synthetic heads"
        )
    if out is not None:
        return _Examiner(prior, asked, draw_cameras, out, pictures=True).run()
    with tempfile.TemporaryDirectory() as folder:
        return _Examiner(prior, asked, draw_cameras, Path(folder), pictures=False).run()


@torch.no_grad()
def encode(encoder: Encoder, images: Float[Tensor, "batch 3 size size"]) -> Latents:
    """W+ latents that an encoder sees in pictures."""
    return encoder.encode(images).ws


class _Examiner:
    """The chain of stages; what a stage finds is JSON in its stamp, latents lie beside as tensors."""

    def __init__(
        self, prior: Prior, asked: Examination, draw_cameras: DrawCameras, out: Path, pictures: bool
    ) -> None:
        self.prior, self.asked, self.draw_cameras, self.out = prior, asked, draw_cameras, out
        self.device = prior.generator.w_avg.device
        self.batch = asked.batch or BATCH.get(self.device.type, BATCH["cpu"])
        self.draws = pictures
        self.stages = Stages(out / "stages")
        sums = read_sums(prior.folder)
        self.question = {
            "generator": prior.sha256,
            "encoder": sums.get(ENCODER) if prior.encoder else None,
            "directions": sums.get(DIRECTIONS) if prior.directions else None,
            "seed": asked.seed,
            "device": self.device.type,
            "factors": NUM_FACTORS,
            "my3dgen": __version__,
        }

    def run(self) -> dict[str, Any]:
        """All stages in order; returns the report."""
        asked, generator = self.asked, self.prior.generator
        heads = self.question | {"identities": asked.identities}
        long = heads | {"steps": asked.steps, "rule": vars(InversionRule())}
        some = self.question | {"samples": asked.samples}
        stages = self.stages
        stages.run("heads", heads, lambda: {"heads": len(self.people)})
        stages.run("inversion", long, self.invert)
        stages.run("encoder", heads | {"rule": vars(InversionRule())}, self.encode)
        views = stages.run("views", None, self.judge, needs=("inversion", "encoder"))
        made: dict[str, Any] = {}
        for name, work in {
            "samples": lambda: likeness_of_sets(
                self.prior, asked.samples, asked.seed, self.draw_cameras, self.batch
            ),
            "smile": lambda: smiles(self.prior, self.samples, self.batch),
            "interpolation": lambda: evenness(self.prior, self.samples),
        }.items():
            made |= stages.run(name, some, work)
        repeats = 20 if self.device.type == "cuda" else 5
        made["latency"] = stages.run(
            "latency", self.question, lambda: latency(generator, self.samples[:1], repeats)
        )
        shown = {}
        if self.draws:
            shown = stages.run("pictures", some, lambda: self.draw(views), needs=("views",))
        report = self.report(views, made, shown)
        if self.draws:
            from my3dgen.evaluate.prior_report import write_page

            write_json(self.out / "report.json", report)
            write_page(report, self.out / "report.html")
        return report

    @cached_property
    def people(self) -> People:
        """The heads and their true views; drawn anew when a stage that needs them runs."""
        seeds = inverted_seeds(self.asked.seed, self.asked.identities)
        parts = photograph_people(seeds, self.prior.config, self.device)
        total = batches(len(seeds), together(self.device, len(offsets())))
        return gather(list(track(parts, "true views", total=total)))

    @cached_property
    def samples(self) -> Latents:
        """Heads of the prior, truncated, that are edited, mixed and shown."""
        count = max(self.asked.samples, 2)
        rng = torch.Generator().manual_seed(self.asked.seed)
        return draw_latents(self.prior.generator, count, PSI, rng)

    def runs(self) -> list[slice]:
        """The heads in batches of nearly equal size."""
        count = self.asked.identities
        number = batches(count, self.batch)
        return [slice(count * i // number, count * (i + 1) // number) for i in range(number)]

    def invert(self) -> dict[str, Any]:
        """The long inversion of every head, from the mean latent."""
        w_avg, rows = self.prior.generator.w_avg, self.prior.config.num_ws
        return self.search("inversion", lambda images: w_avg.expand(len(images), rows, -1), self.asked.steps)

    def encode(self) -> dict[str, Any] | None:
        """What the encoder sees, and the same corrected; None without an encoder."""
        encoder = self.prior.encoder
        if encoder is None:
            return None
        parts = [encode(encoder, self.people.image(run, 0, self.device)) for run in self.runs()]
        self.keep("encoder", torch.cat(parts))
        return self.search("encoder50", lambda images: encode(encoder, images), FEW_STEPS)

    def search(self, name: str, start: Callable[[Tensor], Latents], steps: int) -> dict[str, Any]:
        """Invert all heads from `start` of their pictures and keep the latents under a name."""
        statistics = latent_statistics(self.prior.generator)
        perceptual = load_perceptual("squeeze-feat", self.device)
        bar = iter(track(range(steps * len(self.runs())), name.replace("50", " + 50 steps")))
        found = []
        for run in self.runs():
            images = self.people.image(run, 0, self.device)
            found.append(
                invert_wplus(
                    self.prior.generator,
                    images,
                    self.people.camera(run, 0, self.device),
                    self.people.mask(run, 0, self.device),
                    start(images),
                    steps,
                    statistics=statistics,
                    perceptual=perceptual,
                    on_step=lambda _: next(bar, None),
                )
            )
        next(bar, None)  # so that the bar ends
        self.keep(name, torch.cat(found))
        return {"steps": steps}

    def keep(self, name: str, ws: Latents) -> None:
        """Write latents beside the stamps."""
        write_tensors(self.out / "stages" / f"{name}.safetensors", {"ws": ws.cpu()}, {})

    def latents(self, name: str) -> Latents:
        """Latents that an earlier stage kept."""
        path = self.out / "stages" / f"{name}.safetensors"
        tensors, _ = read_tensors(path, MAX_LATENTS_BYTES, remedy="remove the folder and run again")
        return tensors["ws"].to(self.device)

    def ways(self) -> list[str]:
        """The ways to invert that this prior has."""
        return [way for way in WAYS if way == "inversion" or self.prior.encoder is not None]

    @torch.no_grad()
    def judge(self) -> dict[str, Any]:
        """way -> Table, and the depth of the long inversion."""
        judge, people, generator = load_judge(self.device), self.people, self.prior.generator
        seen = {way: range(len(offsets())) if way == "inversion" else views_of(30) for way in self.ways()}
        jobs = [(way, run) for way in seen for run in self.runs()]
        tables: dict[str, Table] = {
            way: {view_name(view): {"psnr": [], "perceptual": [], "identity": []} for view in views}
            for way, views in seen.items()
        }
        depth: dict[str, list[float]] = {"error": [], "missed": []}
        ws = {way: self.latents(way) for way in seen}
        for way, run in track(jobs, "comparing views"):
            own = ws[way][run]
            planes = generator.planes(own, noise="none")
            for view in seen[way]:
                camera = people.camera(run, view, self.device)
                image = generator.render(planes, camera, own).image.float()
                truth, mask = people.image(run, view, self.device), people.mask(run, view, self.device)
                for score in judge.score(image, truth, mask, camera):
                    for figure, values in tables[way][view_name(view)].items():
                        values.append(getattr(score, figure))
            if way == "inversion":
                camera, mask = people.camera(run, 0, self.device), people.mask(run, 0, self.device)
                volume = generator.volume(planes, camera, resolution=DEPTH_SIDE)
                error, missed = depth_error(
                    volume.depth[:, 0].float(),
                    volume.opacity[:, 0].float(),
                    people.depth[run].to(self.device).float(),
                    shrink(mask, DEPTH_SIDE)[:, 0],
                )
                depth["error"] += error.tolist()
                depth["missed"] += missed.tolist()
        return {"ways": tables, "depth": depth}

    def draw(self, views: Mapping[str, Any]) -> dict[str, str]:
        """The report's pictures: name -> path relative to the folder."""
        from my3dgen.evaluate.prior_report import draw_all

        ws = {way: self.latents(way) for way in self.ways()}
        return draw_all(self.prior, self.people, ws, views["ways"], self.samples, self.out, self.asked.seed)

    def report(
        self, views: Mapping[str, Any], made: Mapping[str, Any], shown: Mapping[str, str]
    ) -> dict[str, Any]:
        """Everything found, as one JSON object."""
        ways = views["ways"]
        people = {
            "inversion_psnr": figure(ways, "inversion", 0, "psnr"),
            "encoder_psnr": figure(ways, "encoder", 0, "psnr"),
            "view30_psnr": figure(ways, "inversion", 30, "psnr"),
        }
        seeds = inverted_seeds(self.asked.seed, self.asked.identities)
        groups = by_group(sample_factors(seeds), {k: torch.tensor(v) for k, v in people.items() if v})
        missed = [x for x in views["depth"]["missed"] if x == x]
        return {
            "my3dgen": __version__,
            "prior": self.prior.name,
            "prior_sha256": self.prior.sha256,
            "encoder_sha256": self.question["encoder"],
            "parameters": self.prior.generator.parameter_count,
            "device": device_name(self.device),
            "identities": self.asked.identities,
            "samples": self.asked.samples,
            "seed": self.asked.seed,
            "steps": self.asked.steps,
            "heads": [seeds[0], seeds[-1]],
            "factors": NUM_FACTORS,
            **{
                f"inversion_{name}": average(figure(ways, "inversion", 0, name))
                for name in ("psnr", "perceptual", "identity")
            },
            **{
                f"view{turn}_{name}": average(figure(ways, "inversion", turn, name))
                for turn in TURNS
                for name in ("psnr", "identity")
            },
            **{
                f"{way}_{prefix}{name}": average(figure(ways, way, turn, name))
                for way in ("encoder", "encoder50")
                for prefix, turn in (("", 0), ("view30_", 30))
                for name in ("psnr", "identity")
            },
            "depth_error": average(views["depth"]["error"]),
            "depth_missed": average(missed),
            **made,
            "groups": groups,
            "worst_group": worst_group(groups),
            "perceptual_network": PERCEPTUAL_NETWORK,
            "identity_network": IDENTITY_NETWORK,
            "seconds": self.stages.seconds(),
            "peak_rss_mb": self.stages.peak_rss_mb(),
            "pictures": dict(shown),
        }


def depth_error(
    depth: Float[Tensor, "batch side side"],
    opacity: Float[Tensor, "batch side side"],
    truth: Float[Tensor, "batch side side"],
    cover: Float[Tensor, "batch side side"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """(mean absolute error, share missed) of ray depths, one a head.

    Rays count that the true head covers by more than half. Where the prior's own opacity is not above a
    half there is no depth to speak of: such rays are left out of the error and make the share missed.
    """
    head = (cover > 0.5) & (truth > 0)
    met = head & (opacity > 0.5)
    error = ((depth - truth).abs() * met).sum((1, 2)) / met.sum((1, 2))
    return error, 1 - met.sum((1, 2)) / head.sum((1, 2))


def views_of(turn: int) -> list[int]:
    """Places in `offsets()` of the source and of a turn to both sides."""
    return [place for place, degrees in enumerate(offsets()) if abs(degrees) in (0, turn)]


def view_name(view: int) -> str:
    """The yaw of a view relative to the source, in degrees, as a key."""
    degrees = offsets()[view]
    return f"{degrees:+d}" if degrees else "0"


def figure(ways: Mapping[str, Table], way: str, turn: int, name: str) -> list[float] | None:
    """A figure of every head at a turn, the mean of both sides; None for a way that is not there."""
    if way not in ways:
        return None
    sides = ("0",) if turn == 0 else (f"-{turn}", f"+{turn}")
    columns = [ways[way][side][name] for side in sides]
    return [sum(values) / len(values) for values in zip(*columns, strict=True)]


def average(values: Sequence[float] | None) -> float | None:
    """The mean over heads; NaN (null in JSON) values are left out, None of nothing."""
    kept = [value for value in values or () if value == value]
    return sum(kept) / len(kept) if kept else None


def device_name(device: torch.device) -> str:
    """What computed: "cpu" or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
