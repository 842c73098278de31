"""Photos to latents, the generator frozen: the anchors of a new person.

All photos of an album show one person, so what is learned on some helps with all. Each photo starts
from what the prior's encoder sees in it, corrected by what fitting a few pilot photos changed. Without an
encoder one common latent is fitted to all photos first, with one set of planes for many cameras. Either
way every photo then needs only a few steps more.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.anchors import Anchors
from my3dgen.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from my3dgen.faces.album import Album
from my3dgen.fit import Fit, Looks, Stage, fit
from my3dgen.latents import LatentStatistics, WSpace, latent_statistics
from my3dgen.lora import Adapter
from my3dgen.perceptual import load_perceptual
from my3dgen.prior.encoder import Encoder
from my3dgen.prior.store import Prior
from my3dgen.progress import track
from my3dgen.targets import joined, targets_of

Quality = Literal["draft", "standard", "max"]
FEW = 4  # photos; fewer have nothing to share
W_PLUS_RATE = 1 / 3
PILOTS = 4  # photos of a person from which the others learn where to start
SMALL = 20  # photos; of fewer, pilots are so many that they, too, start again from what was learned
CPU_PHOTOS = 4  # at once
GPU_SAMPLES = 3 << 19  # along the rays of the photos at once: 16 of `mini`, a few GB


@dataclass(frozen=True, kw_only=True)
class InvertConfig:
    """How photos are inverted. A step is one photo seen once, forward and backward."""

    space: Literal["w", "w+"] = "w"
    """One vector for all layers, or one a layer: nearer to the photo, less so from other sides."""
    common_steps: int = 40
    """Steps that fit one latent to the whole album, if the prior has no encoder; 0 also leaves out the
    pilot photos of one that has. Never for fewer than 4 photos."""
    coarse_steps: int = 8
    """Steps a photo on a quarter of the rays."""
    fine_steps: int = 3
    """Steps a photo on all rays, with the perceptual distance."""
    alone_factor: int = 6
    """Photos by themselves, fewer than 4, take this many times the steps."""
    perceptual: float = 0.1
    """Weight of the perceptual distance."""
    rate: float = 0.15
    """Learning rate in units of the prior's standard deviation (W+ takes a third of it)."""
    cameras: bool = True
    """Whether cameras are corrected a little, too."""
    batch: int | None = None
    """Photos at once, which changes results by rounding alone; None for what suits the device."""
    seed: int = 0


QUALITIES: dict[Quality, InvertConfig] = {
    "draft": InvertConfig(common_steps=24, coarse_steps=4, fine_steps=1),
    "standard": InvertConfig(),
    "max": InvertConfig(common_steps=100, coarse_steps=60, fine_steps=40, alone_factor=3),
}


def invert(
    prior: Prior,
    album: Album,
    config: InvertConfig = QUALITIES["standard"],
    adapter: Adapter | None = None,
    *,
    unfinished: Path | None = None,
) -> Anchors:
    """One latent and one corrected camera per photo of an album of one person, on the CPU.

    `unfinished` is a file for work under way: an interrupted call continues from it and comes to
    the same result; it is left for the caller to delete. Raises UserError for an album without photos
    or when the optimisation diverges.
    """
    return invert_many(prior, [album], config, adapter, unfinished=unfinished)[0]


def invert_many(
    prior: Prior,
    albums: Sequence[Album],
    config: InvertConfig = QUALITIES["standard"],
    adapter: Adapter | None = None,
    *,
    unfinished: Path | None = None,
) -> list[Anchors]:
    """`invert` for several people, whose photos share the batches. The adapter, if any, is everybody's.

    Everybody gets what they get alone, up to rounding.
    """
    if not albums:
        return []
    generator, device = prior.generator, prior.generator.w_avg.device
    people = [targets_of(album, prior.config, device) for album in albums]
    targets = joined(people)
    statistics = latent_statistics(generator)
    perceptual = load_perceptual("squeeze-feat", device) if config.perceptual else None
    looks = Looks(generator, adapter, perceptual)
    ends = list(itertools.accumulate(map(len, people)))
    numbers = [range(end - len(own), end) for own, end in zip(people, ends, strict=True)]
    many = [own for own in numbers if len(own) >= FEW]
    stages, alone = stages_of(prior, config), stages_of(prior, config, config.alone_factor)
    size = config.batch or photos_at_once(prior, device)
    encoded = prior.encoder and encode(prior.encoder, targets.images, statistics)
    shared = config.common_steps > 0 and bool(many)
    pilots = [own[i] for own in many for i in spread(len(own), PILOTS)] if shared and prior.encoder else []
    others = [i for own in many for i in own if len(own) < SMALL or i not in pilots]
    few = [i for own in numbers if len(own) < FEW for i in own]
    groups = ((pilots, stages), (others, stages), (few, alone))
    runs = [(photos, seen_in) for group, seen_in in groups for photos in chunked(group, size)]
    piloting = len(chunked(pilots, size))

    belongs = fingerprint(
        "invert, pilots kept",
        prior.sha256,
        asdict(config) | {"batch": size},
        [len(own) for own in people],
        *(adapter.tensors.values() if adapter else ()),
        targets.images,
        targets.masks,
        targets.cameras,
    )
    kept = load_checkpoint(unfinished, belongs) if unfinished else None
    found = dict(kept.tensors) if kept else {}

    def keep(**tensors: Tensor) -> None:
        found.update(tensors)
        if unfinished:
            save_checkpoint(unfinished, belongs, found, {})

    todo = [run for run in range(len(runs)) if f"ws.{run}" not in found]
    common = 0
    if shared and encoded is None and "common.u" not in found:
        common = config.common_steps * len(many)
    total = common + sum(len(photos) * steps_in(seen_in) for photos, seen_in in (runs[run] for run in todo))
    tick = ticker(total, f"inverting {len(targets)} photos")

    def search(
        photos: Sequence[int],
        start: Tensor,
        moves: Tensor,
        stages: Sequence[Stage],
        together: int | None = None,
    ) -> tuple[Fit, Tensor]:
        """The fit, and the coordinates of its latents."""
        space = WSpace(
            statistics,
            prior.config.num_ws,
            start,
            plus=config.space == "w+",
            rate=config.rate * (W_PLUS_RATE if config.space == "w+" else 1),
        )
        result = fit(
            looks,
            space,
            targets,
            photos,
            stages,
            moves=moves,
            move_cameras_too=config.cameras,
            together=together,
            rng=torch.Generator().manual_seed(config.seed),
            on_step=tick,
        )
        return result, space.u.detach()

    start = statistics.mean.new_zeros(len(targets), 1, prior.config.w_dim)
    moves = start.new_zeros(len(targets), 6)
    if encoded is not None:
        start = encoded[:, None]
    if common:
        stage, u, m = replace(stages[0], steps=config.common_steps), start.clone(), moves.clone()
        for own in many:
            result, one = search(own, start[:1], moves[own], [stage], together=PILOTS)
            u = u.expand(-1, one.shape[1], -1).clone()
            u[own], m[own] = one, result.moves
        keep(**{"common.u": u, "common.moves": m})
    if shared and encoded is None:
        start, moves = found["common.u"].to(start), found["common.moves"].to(moves)

    def do(run: int) -> None:
        photos, seen_in = runs[run]
        result, u = search(photos, start[photos], moves[photos], seen_in)
        learned = {f"u.{run}": u, f"moves.{run}": result.moves} if run < piloting else {}
        keep(**{f"ws.{run}": result.ws, f"cameras.{run}": result.cameras}, **learned)

    for run in todo:
        if run < piloting:
            do(run)
    if pilots:
        # the encoder errs alike on all photos of a person, and so does the camera's estimate
        u, moved = (
            torch.cat([found[f"{n}.{run}"] for run in range(piloting)]).to(start) for n in ("u", "moves")
        )
        counts = [len(spread(len(own), PILOTS)) for own in many]
        errors = (u - start[pilots]).split(counts)
        start = start.expand(-1, u.shape[1], -1).clone()
        for own, error, move in zip(many, errors, moved.split(counts), strict=True):
            start[own] += error.mean(0)
            moves[own] += move.mean(0)
    for run in todo:
        if run >= piloting:
            do(run)
    # the last run of a photo counts
    last = {i: (run, place) for run, (photos, _) in enumerate(runs) for place, i in enumerate(photos)}
    ws, cameras = (
        torch.stack([found[f"{name}.{run}"][place].cpu() for _, (run, place) in sorted(last.items())])
        for name in ("ws", "cameras")
    )
    return [
        Anchors(ws[own.start : own.stop], cameras[own.start : own.stop], one.names)
        for own, one in zip(numbers, people, strict=True)
    ]


def spread(count: int, some: int) -> list[int]:
    """At most `some` of the numbers below `count`, from all over."""
    some = min(some, count)
    return [i * count // some for i in range(some)]


def steps_in(stages: Sequence[Stage]) -> int:
    """How many steps a photo gets."""
    return sum(stage.steps for stage in stages)


@torch.no_grad()
def encode(
    encoder: Encoder, images: Float[Tensor, "batch 3 size size"], statistics: LatentStatistics
) -> Float[Tensor, "batch w_dim"]:
    """What an encoder sees in pictures, in units of the prior's spread."""
    return statistics.encode(torch.cat([encoder(some) for some in images.split(8)]))


def stages_of(prior: Prior, config: InvertConfig, factor: int = 1) -> list[Stage]:
    """The coarse and the fine steps of one photo. Half the samples are enough to steer by."""
    rays, samples = prior.config.neural_rendering_resolution, max(8, prior.config.depth_resolution // 2)
    return [
        Stage(config.coarse_steps * factor, rays // 2, samples),
        Stage(config.fine_steps * factor, rays, samples, config.perceptual),
    ]


def photos_at_once(prior: Prior, device: torch.device) -> int:
    """How many photos a step sees: on a GPU as many as keep it busy."""
    finest = stages_of(prior, InvertConfig())[-1]
    samples = finest.rays**2 * 2 * finest.samples
    return max(CPU_PHOTOS, GPU_SAMPLES // samples) if device.type == "cuda" else CPU_PHOTOS


def chunked(numbers: Sequence[int], size: int) -> list[list[int]]:
    """The numbers in runs of `size`."""
    return [list(numbers[i : i + size]) for i in range(0, len(numbers), size)]


def ticker(total: int, description: str) -> Callable[[int], None]:
    """A bar of `total` ticks; call what is returned with the ticks done."""
    bar = track(range(total), description)
    next(bar, None)  # draws the empty bar

    def tick(count: int) -> None:
        for _ in range(count):
            next(bar, None)

    return tick
