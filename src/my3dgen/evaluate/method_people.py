"""Whom methods are judged on: a synthetic person's album and true views, made once and kept on disk.

The album goes through `my3dgen.faces` as any folder of photos, and so does a second one of the same person,
whom `changes` make another from photo to photo.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from my3dgen.errors import UserError
from my3dgen.evaluate.making import nearest_to_front, to_album
from my3dgen.evaluate.method_protocol import Protocol
from my3dgen.evaluate.protocol import select
from my3dgen.evaluate.true_views import Moment, make_moments, read_moments
from my3dgen.faces.album import Album, read_album
from my3dgen.prior.store import Prior
from my3dgen.synthetic.album import CHANGE_SPREADS, CHANGES_STREAM, plan_album, read_truth, write_album
from my3dgen.synthetic.factors import normals

ORDER_STREAM = 21
VIEWS = "views.safetensors"
CHANGES = 1.0
"""Of the album of which `my3dgen.evaluate.method_protocol.CHANGING` methods learn."""
ALBUM_CHANGES = {"changes": CHANGES, "stream": CHANGES_STREAM, "spreads": dict(CHANGE_SPREADS)}
"""Its recipe: rows of other changes are other rows."""


@dataclass(frozen=True, eq=False)
class Case:
    """A person to be learned and tested."""

    learn: Album
    """From these photos; the first n are what a method with n photos gets."""
    test: Album
    """Held-out photos."""
    moments: tuple[Moment, ...]


def make_photos(
    seed: int, protocol: Protocol, prior: Prior, folder: Path, changes: float = 0.0
) -> dict[str, Any]:
    """Draw a person's photos and make them an album in `folder`; returns its names and what was dropped."""
    truth = plan_album(seed, protocol.album, protocol.photo_size, changes)
    taken = folder / "taken"
    shutil.rmtree(taken, ignore_errors=True)
    write_album(taken, truth, device=prior.generator.w_avg.device.type)
    made = to_album(taken / "photos", folder / "album", prior)
    held_out = {photo.name for photo in truth.photos if photo.held_out}
    learn = {name: file for name, file in made["files"].items() if file not in held_out}
    test = {name: file for name, file in made["files"].items() if file in held_out}
    if not learn or len(test) < protocol.moments:
        raise UserError(f"too few photos of the person {seed} are usable ({len(learn)} and {len(test)})")
    return {"learn": sorted(learn), "test": sorted(test), "files": made["files"], "dropped": made["dropped"]}


def make_views(photos: dict[str, Any], protocol: Protocol, prior: Prior, folder: Path) -> dict[str, Any]:
    """True views of held-out moments, the frontal ones first, in `folder`; what `read_moments` needs."""
    test = select(read_album(folder / "album"), photos["test"])
    shown = [photos["files"][name] for name in nearest_to_front(test, len(test))]
    truth = read_truth(folder / "taken")
    return make_moments(truth, shown, protocol.yaws, protocol.moments, prior, folder / VIEWS)


def read_case(seed: int, photos: dict[str, Any], views: dict[str, Any], folder: Path) -> Case:
    """What the two functions above left in `folder`."""
    test = select(read_album(folder / "album"), photos["test"])
    return Case(read_learn(seed, photos, folder), test, tuple(read_moments(views, folder / VIEWS)))


def read_learn(seed: int, photos: dict[str, Any], folder: Path) -> Album:
    """What `make_photos` left in `folder` to learn from, in an order of the person's own, the most frontal
    photo first."""
    learn = select(read_album(folder / "album"), photos["learn"])
    first = nearest_to_front(learn)[0]
    chance = normals([seed], len(learn), stream=ORDER_STREAM)[0].argsort().tolist()
    return select(learn, [first, *(learn.names[i] for i in chance if learn.names[i] != first)])
