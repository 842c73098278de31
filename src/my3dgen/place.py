"""A place for photos among a person's anchors: alpha-space inversion (EG3D spec 5.8).

A photo starts from the anchors that look like it, or that are nearest to what the prior's encoder sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.alpha import Stray, decode, project, stray
from my3dgen.faces.album import Album
from my3dgen.fit import Fit, Looks, Stage, distance, fit, seen
from my3dgen.invert import (
    QUALITIES,
    InvertConfig,
    chunked,
    encode,
    photos_at_once,
    spread,
    stages_of,
    steps_in,
    ticker,
)
from my3dgen.latents import AlphaSpace, LatentStatistics, latent_statistics
from my3dgen.lora import Adapter
from my3dgen.perceptual import load_perceptual
from my3dgen.person import Person
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior
from my3dgen.targets import Targets, targets_of

PLACE_FACTOR = 2  # steps of a photo that starts from a mixture of anchors
ALPHA_RATE = 0.15  # in units of the anchors' spread
LIKENESSES = 16  # anchors that show how the encoder errs on a person


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
