"""Pivotal tuning: bend a person's adapter, or all of a prior, around one photo, its latent being the pivot
(EG3D spec 5.7).

The photo is then matched more closely than any point of alpha-space can, at some cost from other
sides. The result is an adapter or a generator of its own; the person's, or the prior's, is not touched.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.checkpoint import fingerprint
from my3dgen.faces.album import Album
from my3dgen.lora import Adapter
from my3dgen.perceptual import load_perceptual
from my3dgen.personalize import TUNED_IN_FULL, Quality
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior
from my3dgen.targets import targets_of
from my3dgen.tune import TuneConfig, tune

QUALITIES: dict[Quality, TuneConfig] = {
    "draft": TuneConfig(steps=15, warm=5),
    "standard": TuneConfig(steps=40, warm=5),
    "max": TuneConfig(steps=300, window=None),
}


@runtime_checkable
class Pivots(Protocol):
    """Inverted photos: `Anchors`, what `place` found, and the like."""

    @property
    def ws(self) -> Float[Tensor, "photos num_ws w_dim"]:
        """Latents, which stay."""
        ...

    @property
    def cameras(self) -> Float[Tensor, "photos 25"]:
        """Cameras, which stay, too."""
        ...


def tune_on_photo(
    prior: Prior,
    adapter: Adapter,
    album: Album,
    placed: Pivots,
    index: int,
    config: TuneConfig = QUALITIES["standard"],
) -> Adapter:
    """A copy of `adapter` trained on photo `index` of the album, whose latent and camera are in `placed`.

    Raises UserError when training diverges.
    """
    own = adapter.to(prior.generator.w_avg.device).detached().requires_grad_()
    _tune(prior, prior.generator, own, own.tensors, album, placed, index, config)
    with torch.no_grad():
        return own.detached().to("cpu")


def tune_all_on_photo(
    prior: Prior, album: Album, placed: Pivots, index: int, config: TuneConfig
) -> Generator:
    """A copy of the prior's generator, all weights but the mapping's trained on photo `index`.

    Arguments and errors as `tune_on_photo`. The rate of an adapter is too high for this.
    """
    generator = copy.deepcopy(prior.generator)
    leaves = {n: p.requires_grad_() for n, p in generator.named_parameters() if n.startswith(TUNED_IN_FULL)}
    _tune(prior, generator, None, leaves, album, placed, index, config)
    return generator.requires_grad_(False)


def _tune(
    prior: Prior,
    generator: Generator,
    adapter: Adapter | None,
    leaves: Mapping[str, Tensor],
    album: Album,
    placed: Pivots,
    index: int,
    config: TuneConfig,
) -> None:
    """Train the leaves in place."""
    device = generator.w_avg.device
    targets = replace(targets_of(album, prior.config, device), cameras=placed.cameras.to(device), cache={})
    pivot = placed.ws[index : index + 1].to(device)
    tune(
        generator,
        adapter,
        leaves,
        targets.only(index),
        lambda numbers: pivot.expand(len(numbers), -1, -1),
        config,
        load_perceptual("squeeze-feat", device) if config.perceptual else None,
        belongs=fingerprint("pivot"),
        description="tuning on the photo",
    )
