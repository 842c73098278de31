"""Photos to latents, the generator frozen: the anchors of a new person, or a place among a person's own.

All photos of an album show one person, so what is learned on some helps with all. Each photo starts
from what the prior's encoder sees in it, corrected by what fitting a few pilot photos changed. Without an
encoder one common latent is fitted to all photos first, with one set of planes for many cameras. Either
way every photo then needs only a few steps more.
A photo that is placed among a person's anchors starts from those that look like it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.alpha import Stray, decode, project, stray
from my3dgen.anchors import Anchors
from my3dgen.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from my3dgen.faces.album import Album
from my3dgen.fit import Fit, Looks, Stage, distance, fit, seen
from my3dgen.latents import AlphaSpace, LatentStatistics, WSpace, latent_statistics
from my3dgen.lora import Adapter
from my3dgen.perceptual import load_perceptual
from my3dgen.person import Person
from my3dgen.prior.encoder import Encoder
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior
from my3dgen.progress import track
from my3dgen.targets import Targets, joined, targets_of

Quality = Literal["draft", "standard", "max"]
FEW = 4  # photos; fewer have nothing to share
W_PLUS_RATE = 1 / 3
PILOTS = 4  # photos of a person from which the others learn where to start
SMALL = 20  # photos; of fewer, pilots are so many that they, too, start again from what was learned
CPU_PHOTOS = 4  # at once
GPU_SAMPLES = 3 << 19  # along the rays of the photos at once: 16 of `mini`, a few GB
PLACE_FACTOR = 2  # steps of a photo that starts from a mixture of anchors
ALPHA_RATE = 0.15  # in units of the anchors' spread
LIKENESSES = 16  # anchors that show how the encoder errs on a person


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


@dataclass(frozen=True, eq=False)
class Placed:
    """Photos in a person's alpha-space."""

    ws: Float[Tensor, "batch num_ws w_dim"]
    cameras: Float[Tensor, "batch 25"]
    alphas: Float[Tensor, "batch num_ws anchors"]
    """Weights of the anchors in every layer; each row sums to 1."""
    names: tuple[str, ...]
    stray: Stray | None = None
    """How far outside the dilated hull the best points without that bound would lie, in units of the
    prior's spread; None if not asked for."""


def place(
    prior: Prior,
    person: Person,
    album: Album,
    config: InvertConfig = QUALITIES["standard"],
    *,
    beta: float | None = 0.3,
    known: Float[Tensor, "batch 1 size size"] | None = None,
    detail: int | None = None,
    measure_stray: bool = False,
) -> Placed:
    """Photos in the dilated hull of a person's anchors (EG3D spec 5.8), rendered with the adapter.

    `beta` is how far outside the hull a weight may lie, None for anywhere: light and expression are
    hardly ever mixtures of the anchors', so a narrow hull costs a decibel and gains no likeness. With
    `config.space` "w+" every layer has weights of its own. Pixels that are not `known` (1 is; at the album's
    size) have no influence, and renderings are reduced to the photos' `detail` (pixels across) before they
    are compared.
    With `measure_stray` the search also goes on without the bound, to tell how far it would lead.
    Raises PriorMismatchError for a person of another prior, and UserError as `invert`.
    """
    person.check_prior(prior)
    generator, device = prior.generator, prior.generator.w_avg.device
    targets = targets_of(album, prior.config, device, known=known, detail=detail)
    statistics = latent_statistics(generator)
    adapter, anchors = person.adapter.to(device), person.anchors.ws.to(device)
    perceptual = load_perceptual("squeeze-feat", device) if config.perceptual else None
    looks = Looks(generator, adapter, perceptual)
    stages, plus = stages_of(prior, config, PLACE_FACTOR), config.space == "w+"
    steps = steps_in(stages) + (steps_in(stages[1:]) if measure_stray else 0)
    tick = ticker(len(targets) * steps, f"inverting {len(targets)} photos")
    start = first_weights(prior, person, targets, statistics, stages[0])
    corners = statistics.encode(anchors)

    def search(
        photos: Sequence[int], weights: Tensor, moves: Tensor | None, stage: Stage
    ) -> tuple[Tensor, Fit]:
        """The weights, wherever they led, and the fit."""
        space = AlphaSpace(anchors, weights, plus=plus, rate=ALPHA_RATE)
        found = fit(
            looks,
            space,
            targets,
            photos,
            [stage],
            moves=moves,
            move_cameras_too=config.cameras,
            on_step=tick,
        )
        return space.alphas().detach(), found

    def bounded(weights: Tensor) -> Tensor:
        if beta is None:
            return weights
        return project(statistics.encode(decode(weights, anchors)), corners, float(beta), per_layer=plus)

    alphas, cameras, strays = [], [], []
    for photos in chunked(range(len(targets)), config.batch or photos_at_once(prior, device)):
        free, first = search(photos, start[list(photos)], None, stages[0])
        weights, found = bounded(free), first
        for stage in stages[1:]:
            reached, found = search(photos, weights, found.moves, stage)
            weights = bounded(reached)
        if measure_stray:
            for stage in stages[1:]:
                free, first = search(photos, free, first.moves, stage)
            strays.append(stray(free if plus else free[:, 0], corners, float(beta or 0)))
        alphas.append(weights if weights.dim() == 3 else weights[:, None].expand(-1, anchors.shape[1], -1))
        cameras.append(found.cameras)
    weights = torch.cat(alphas)
    return Placed(
        decode(weights, anchors).cpu(),
        torch.cat(cameras).cpu(),
        weights.cpu(),
        targets.names,
        Stray(*(torch.cat([getattr(s, n) for s in strays]).cpu() for n in ("weight", "distance")))
        if strays
        else None,
    )


@torch.no_grad()
def first_weights(
    prior: Prior, person: Person, targets: Targets, statistics: LatentStatistics, stage: Stage
) -> Float[Tensor, "photos anchors"]:
    """Where to start between the anchors: nearest to what the encoder sees, or to how anchors look.

    The encoder errs alike on all pictures of a person, and on all that lack detail. How much, it shows on
    some of the anchors.
    """
    device = targets.images.device
    adapter, anchors = person.adapter.to(device), person.anchors.ws.to(device)
    generator, encoder = prior.generator, prior.encoder
    if encoder is None:
        return nearest_anchors(anchor_distances(generator, adapter, anchors, targets, stage))
    cameras, corners = person.anchors.cameras.to(device), statistics.encode(anchors.mean(1))
    some = spread(len(anchors), LIKENESSES)
    pictures = torch.cat([generator.synthesis(anchors[[i]], cameras[[i]], adapter).image for i in some])
    error = (encode(encoder, targets.like(pictures.clamp(-1, 1)), statistics) - corners[some]).mean(0)
    photos = targets.images
    if targets.known is not None:  # an encoder knows whole faces; the usual one stands in for the rest
        usual = generator.synthesis(anchors.mean(0, keepdim=True), targets.cameras, adapter).image
        photos = torch.where(targets.known > 0.999, photos, usual.clamp(-1, 1))
    encoded = encode(encoder, targets.like(photos), statistics)
    return project((encoded - error)[:, None], corners[:, None], 0.0)


@torch.no_grad()
def anchor_distances(
    generator: Generator,
    adapter: Adapter | None,
    anchors: Float[Tensor, "anchors num_ws w_dim"],
    targets: Targets,
    stage: Stage,
) -> Float[Tensor, "photos anchors"]:
    """How unlike each photo every anchor looks through the photo's camera."""
    columns = []
    for anchor in anchors.split(1):
        planes = generator.planes(anchor, adapter)
        rows = [
            distance(
                seen(generator, planes, targets.cameras[i : i + 1], stage), targets, torch.tensor([i]), stage
            )
            for i in range(len(targets))
        ]
        columns.append(torch.cat(rows))
    return torch.stack(columns, 1)


def nearest_anchors(distances: Float[Tensor, "photos anchors"]) -> Float[Tensor, "photos anchors"]:
    """Weights, summing to 1, that fall off with an anchor's distance in each photo's own scale."""
    above = distances - distances.amin(1, keepdim=True)
    return torch.softmax(-4 * above / above.mean(1, keepdim=True).clamp_min(1e-8), 1)


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
