"""Pivotal tuning: bend a person's adapter, or all of a prior, around one photo, its latent being the pivot
(EG3D spec 5.7).

The photo is then matched more closely than any point of alpha-space can. What it caught of light, gaze and
expression shows from other sides, too; there a small bend gains most, a larger one less. The result is an
adapter or a generator for each photo; the person's, or the prior's, is not touched.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from my3dgen.checkpoint import fingerprint
from my3dgen.comparison import rows
from my3dgen.faces.album import Album
from my3dgen.invert import chunked, photos_at_once
from my3dgen.lora import Adapter, stack, unstack
from my3dgen.perceptual import load_perceptual
from my3dgen.personalize import TUNED_IN_FULL, Quality
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior
from my3dgen.rates import adapter_rates
from my3dgen.targets import Targets, joined, targets_of
from my3dgen.tune import TuneConfig, tune

QUALITIES: dict[Quality, TuneConfig] = {
    "draft": TuneConfig(steps=15, warm=5),
    "standard": TuneConfig(steps=40, warm=5),
    # about as far in all as standard: a higher rate meets the photo nearer, and other sides less
    "max": TuneConfig(steps=300, window=None, rate=3e-4),
}
GPU_PHOTOS = 16  # together, at most


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


def tune_on_photos(
    prior: Prior,
    adapter: Adapter,
    album: Album,
    placed: Pivots,
    config: TuneConfig = QUALITIES["standard"],
) -> list[Adapter]:
    """A copy of `adapter` for each photo of the album, trained on it; latents and cameras are in `placed`.

    On a GPU a step sees several photos, and each copy becomes what it becomes alone, up to rounding. Raises
    UserError when training diverges.
    """
    targets, ws = _pivoted(prior, album, placed)
    tuned = []
    for photos in chunked(range(len(targets)), photos_together(prior)):
        some = joined([targets.only(i) for i in photos])
        start = adapter if len(some) == 1 else stack([adapter] * len(some))
        own = start.to(ws.device).detached().requires_grad_()
        _tune(prior.generator, own, own.tensors, some, ws[photos], config)
        tuned += unstack(own.detached().to("cpu"))
    return tuned


def tune_all_on_photo(
    prior: Prior, album: Album, placed: Pivots, index: int, config: TuneConfig
) -> Generator:
    """A copy of the generator of `prior`, all weights but the mapping's trained on photo `index`.

    Arguments and errors as `tune_on_photos`. The rate of an adapter is too high for this.
    """
    generator = copy.deepcopy(prior.generator)
    leaves = {n: p.requires_grad_() for n, p in generator.named_parameters() if n.startswith(TUNED_IN_FULL)}
    targets, ws = _pivoted(prior, album, placed)
    _tune(generator, None, leaves, targets.only(index), ws[index : index + 1], config)
    generator.zero_grad()  # a gradient takes as much memory as what it is of
    return generator.requires_grad_(False)


def photos_together(prior: Prior) -> int:
    """How many photos a step sees: on a GPU as many as keep it busy, on a CPU one, which takes least time."""
    device = prior.generator.w_avg.device
    return min(GPU_PHOTOS, photos_at_once(prior, device)) if device.type == "cuda" else 1


def _pivoted(
    prior: Prior, album: Album, placed: Pivots
) -> tuple[Targets, Float[Tensor, "photos num_ws w_dim"]]:
    """The album's photos through the cameras in `placed`, and the latents."""
    device = prior.generator.w_avg.device
    cameras = placed.cameras.to(device)
    return replace(targets_of(album, prior.config, device), cameras=cameras, cache={}), placed.ws.to(device)


def _tune(
    generator: Generator,
    adapter: Adapter | None,
    leaves: Mapping[str, Tensor],
    targets: Targets,
    ws: Float[Tensor, "photos num_ws w_dim"],
    config: TuneConfig,
) -> None:
    """Train the leaves in place; each photo is somebody of its own."""
    count = len(targets)
    tune(
        generator,
        adapter,
        leaves,
        targets,
        lambda numbers: rows(ws, numbers),
        config,
        load_perceptual("squeeze-feat", ws.device) if config.perceptual else None,
        belongs=fingerprint("pivot"),
        people=[1] * count,
        rates=None if adapter is None else adapter_rates(leaves),
        description=f"tuning on {count} photos" if count > 1 else "tuning on the photo",
    )
