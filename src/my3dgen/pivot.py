"""Pivotal tuning: bend a person's adapter around one photo, its latent being the pivot (EG3D spec 5.7).

The photo is then matched more closely than any point of alpha-space can, at some cost from other
sides. The result is an adapter of its own; the person's is not touched.
"""

from dataclasses import replace

import torch

from my3dgen.anchors import Anchors
from my3dgen.checkpoint import fingerprint
from my3dgen.faces.album import Album
from my3dgen.invert import Placed
from my3dgen.lora import Adapter
from my3dgen.perceptual import load_perceptual
from my3dgen.personalize import Quality
from my3dgen.prior.store import Prior
from my3dgen.targets import targets_of
from my3dgen.tune import TuneConfig, tune

QUALITIES: dict[Quality, TuneConfig] = {
    "draft": TuneConfig(steps=15, warm=5),
    "standard": TuneConfig(steps=40, warm=5),
    "max": TuneConfig(steps=300, window=None),
}


def tune_on_photo(
    prior: Prior,
    adapter: Adapter,
    album: Album,
    placed: Placed | Anchors,
    index: int,
    config: TuneConfig = QUALITIES["standard"],
) -> Adapter:
    """A copy of `adapter` trained on photo `index` of the album, whose latent and camera are in `placed`.

    Raises UserError when training diverges.
    """
    device = prior.generator.w_avg.device
    targets = replace(targets_of(album, prior.config, device), cameras=placed.cameras.to(device), cache={})
    own = adapter.to(device).detached().requires_grad_()
    pivot = placed.ws[index : index + 1].to(device)
    tune(
        prior.generator,
        own,
        own.tensors,
        targets.only(index),
        lambda numbers: pivot.expand(len(numbers), -1, -1),
        config,
        load_perceptual("squeeze-feat", device) if config.perceptual else None,
        belongs=fingerprint("pivot"),
        description="tuning on the photo",
    )
    with torch.no_grad():
        return own.detached().to("cpu")
