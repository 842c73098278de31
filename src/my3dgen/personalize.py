"""A person out of a prior: an adapter trained so that the anchors' renderings become the photos.

    loss = MSE(image, photo) + MSE(raw, small photo) + perceptual distance of both     (EG3D spec 5.6)
           + a little absolute error of both, and of their differences between neighbours

The latents stay, unless they are refined together with the adapter; the prior never changes.
"""

import copy
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from my3dgen.anchors import Anchors
from my3dgen.checkpoint import fingerprint
from my3dgen.errors import PriorMismatchError, UserError
from my3dgen.faces.album import Album
from my3dgen.lora import new_adapter
from my3dgen.perceptual import load_perceptual
from my3dgen.person import Person, new_person
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior, load_prior
from my3dgen.regularize import identity_and_symmetry
from my3dgen.targets import Targets, targets_of
from my3dgen.tune import TuneConfig, tune

Quality = Literal["draft", "standard", "max"]
FULL_RATE = 1e-4  # the adapter's rate makes all weights diverge
TUNED_IN_FULL = ("backbone.synthesis.", "superresolution.", "decoder.")


@dataclass(frozen=True, kw_only=True)
class PersonalizeConfig(TuneConfig):
    """How a person is made from anchors."""

    rank: int = 1
    """Rank of the adapter per kernel row."""
    alpha: float = 1.0
    """The low-rank changes are scaled by alpha / rank."""
    refine: float = 0.0
    """Learning rate of the latents, in their own units; 0 leaves them as inverted."""
    identity: float = 0.0
    """Weight of 1 - cosine of face embeddings of rendering and photo."""
    symmetry: float = 0.0
    """Weight of 1 - cosine of face embeddings of a rendering and its mirrored view."""


QUALITIES: dict[Quality, PersonalizeConfig] = {
    "draft": PersonalizeConfig(steps=120),
    "standard": PersonalizeConfig(),
    "max": PersonalizeConfig(steps=6000, window=None, batch=2),
}


@dataclass(frozen=True, eq=False)
class FullyTuned:
    """The baseline of full fine-tuning: a generator of its own instead of an adapter."""

    generator: Generator
    anchors: Anchors
    made: dict[str, Any]


def personalize(
    prior: Prior,
    album: Album,
    anchors: Anchors,
    config: PersonalizeConfig = QUALITIES["standard"],
    *,
    unfinished: Path | None = None,
) -> Person:
    """Train an adapter on `prior` so that the anchors reproduce the album's photos.

    `anchors` come from `invert` on the same album. `unfinished` is a file for work under way, continued
    to the same result and left for the caller to delete. Raises UserError for an album without photos
    or when training diverges, PriorMismatchError for anchors that do not fit.
    """
    started = time.monotonic()
    adapter = new_adapter(
        prior.generator, config.rank, config.alpha, torch.Generator().manual_seed(config.seed)
    )
    leaves = dict(adapter.tensors)
    refined, made = _train(prior, prior.generator, adapter, leaves, album, anchors, config, unfinished)
    made["seconds"] = round(time.monotonic() - started, 1)
    return new_person(prior, adapter, refined, {"method": "lora", **made})


def finetune(
    prior: Prior,
    album: Album,
    anchors: Anchors,
    config: PersonalizeConfig | None = None,
    *,
    unfinished: Path | None = None,
) -> FullyTuned:
    """The baseline: train all weights but the mapping's, in a copy of the generator.

    Arguments and errors as `personalize`; the default is its standard with a rate of its own.
    """
    started = time.monotonic()
    config = config or replace(QUALITIES["standard"], rate=FULL_RATE)
    generator = copy.deepcopy(prior.generator)
    leaves = {n: p.requires_grad_() for n, p in generator.named_parameters() if n.startswith(TUNED_IN_FULL)}
    refined, made = _train(prior, generator, None, leaves, album, anchors, config, unfinished)
    generator.requires_grad_(False)
    made["seconds"] = round(time.monotonic() - started, 1)
    return FullyTuned(generator, refined, {"method": "full", **made})


def _train(
    prior: Prior,
    generator: Generator,
    adapter,
    leaves: dict[str, Tensor],
    album: Album,
    anchors: Anchors,
    config: PersonalizeConfig,
    unfinished: Path | None,
) -> tuple[Anchors, dict[str, Any]]:
    device = generator.w_avg.device
    targets = targets_of(album, prior.config, device)
    check_anchors(prior, targets, anchors)
    ws, cameras = anchors.ws.to(device), anchors.cameras.to(device)
    targets = replace(targets, cameras=cameras, cache={})
    # one leaf a photo: an optimiser leaves alone what had no gradient in a step
    moves = (
        [torch.zeros(1, 1, ws.shape[2], device=device, requires_grad=True) for _ in ws]
        if config.refine
        else []
    )

    def latents(numbers: Tensor) -> Tensor:
        if not moves:
            return ws[numbers]
        return torch.cat([ws[i : i + 1] + moves[i] for i in numbers.tolist()])

    refined = {f"latent.{i}": move for i, move in enumerate(moves)}
    method = "full" if adapter is None else "lora"
    losses = tune(
        generator,
        adapter,
        leaves | refined,
        targets,
        latents,
        config,
        load_perceptual("squeeze-feat", device) if config.perceptual else None,
        belongs=fingerprint(method, prior.sha256, asdict(config), targets.images, targets.masks, cameras, ws),
        unfinished=unfinished,
        extra=identity_and_symmetry(generator, adapter, targets, latents, config),
        rates={name: config.refine / config.rate for name in refined},
    )
    with torch.no_grad():
        final = latents(torch.arange(len(ws))).cpu()
    made = {"photos": len(ws), **asdict(config)}
    if losses:
        made["last_loss"] = round(sum(losses[-len(ws) :]) / len(losses[-len(ws) :]), 5)
    return Anchors(final, anchors.cameras, anchors.names), made


def check_anchors(prior: Prior, targets: Targets, anchors: Anchors) -> None:
    """Raise unless there is one anchor per photo (UserError), in the prior's W (PriorMismatchError)."""
    expected = (prior.config.num_ws, prior.config.w_dim)
    if tuple(anchors.ws.shape[1:]) != expected:
        raise PriorMismatchError(
            f"the anchors are {tuple(anchors.ws.shape[1:])}, latents of prior '{prior.name}' {expected}; "
            "invert the album with this prior"
        )
    if len(anchors) != len(targets):
        raise UserError(f"{len(anchors)} anchors for {len(targets)} photos; invert this album again")


def person_of(folder: Path, tuned: FullyTuned) -> Person:
    """A fully tuned generator as a person: an adapter without effect on the prior written to `folder`."""
    prior = load_prior(folder)
    return new_person(prior, new_adapter(prior.generator, 1, 1.0), tuned.anchors, tuned.made)
