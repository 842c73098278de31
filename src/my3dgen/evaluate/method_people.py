"""Whom methods are judged on: a synthetic person's album and true views, made once and kept on disk.

The album goes through `my3dgen.faces` as any folder of photos. True views are cropped in the same way, but
their masks and depths are exact: the head is drawn once more by the camera of the crop itself
(`crop_camera`). The crop's label has that camera at distance 2.7, the scene may have it elsewhere along the
ray, so depths of the scene are brought to the label's scale (`Moment.scale`).
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.cameras import FOCAL, join_label, split_label
from my3dgen.errors import PhotoError, UserError
from my3dgen.evaluate.making import nearest_to_front, to_album
from my3dgen.evaluate.method_protocol import Protocol
from my3dgen.evaluate.protocol import photograph, scene_of, select, wide_cameras
from my3dgen.faces.album import Album, read_album
from my3dgen.faces.align import Square
from my3dgen.faces.build import pixels, portrait
from my3dgen.prior.store import Prior
from my3dgen.progress import track
from my3dgen.synthetic.album import plan_album, read_truth, write_album
from my3dgen.synthetic.factors import normals
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import Scenes
from my3dgen.targets import world_of
from my3dgen.tensor_file import read_tensors, write_tensors

ORDER_STREAM = 21
MAX_VIEWS_BYTES = 1 << 30
COVERED = 0.02
"""Share of a pixel above which it is the head's: soft edges belong to it."""


@dataclass(frozen=True, eq=False)
class Moment:
    """One appearance, seen from several sides."""

    album: Album
    """Views in the order of their yaws; masks are exact."""
    yaws: tuple[int, ...]
    """Degrees."""
    depth: Float[Tensor, "view 64 64"]
    """Distance along the crop's rays in the label's scale, 0 where there is no head."""

    @property
    def source(self) -> int:
        """Place of the frontal view."""
        return self.yaws.index(0)


@dataclass(frozen=True, eq=False)
class Case:
    """A person to be learned and tested."""

    learn: Album
    """From these photos; the first n are what a method with n photos gets."""
    test: Album
    """Held-out photos."""
    moments: tuple[Moment, ...]


def make_photos(seed: int, protocol: Protocol, prior: Prior, folder: Path) -> dict[str, Any]:
    """Draw a person's photos and make them an album in `folder`; returns its names and what was dropped."""
    truth = plan_album(seed, protocol.album, protocol.photo_size)
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
    """True views of held-out moments, the frontal ones first; those whose frontal view is no usable photo are
    passed over. Returns the yaws of each moment and the views that were dropped."""
    truth = read_truth(folder / "taken")
    test = select(read_album(folder / "album"), photos["test"])
    device, config = prior.generator.w_avg.device, prior.config
    kept: list[list[int]] = []
    dropped: list[str] = []
    tensors: dict[str, Tensor] = {}
    for name in track(nearest_to_front(test, len(test)), "true views"):
        if len(kept) == protocol.moments:
            break
        photo = photos["files"][name]
        scenes = scene_of(truth, photo, device)
        shots = photograph(truth, photo, protocol.yaws, max(256, config.img_resolution), device)
        views = []
        for yaw, camera, shot in zip(protocol.yaws, wide_cameras(protocol.yaws), shots, strict=True):
            try:
                found = portrait(shot, config.img_resolution, world=world_of(config))
            except PhotoError as error:
                dropped.append(f"{photo} {yaw:+d}: {error}")
                continue
            mask, depth = exactly(
                scenes, crop_camera(camera, found.square, shot.width), config.img_resolution
            )
            views.append((yaw, pixels(found.image), mask, found.camera, depth))
        yaws = [view[0] for view in views]
        if 0 not in yaws or len(yaws) < 2:
            continue
        for part, column in zip(
            ("image", "mask", "camera", "depth"), list(zip(*views, strict=True))[1:], strict=True
        ):
            tensors[f"{part}.{len(kept)}"] = torch.stack(column)
        kept.append(yaws)
    if not kept:
        raise UserError(f"no true view of the person {truth.seed} is usable ({dropped[0]})")
    write_tensors(folder / "views.safetensors", tensors, {})
    return {"yaws": kept, "dropped": dropped}


def crop_camera(camera: Float[Tensor, "25"], square: Square, width: int) -> Float[Tensor, "25"]:
    """The camera of a square cut out of a picture `width` pixels wide: same place, turned and narrowed."""
    pose, lens = split_label(camera[None].double())
    side = square.side / width
    turn = torch.from_numpy(square.axes / square.side)
    turned = torch.eye(4, dtype=torch.float64)
    turned[:2, :2] = turn
    focal, centre = float(lens[0, 0, 0]), lens[0, :2, 2]
    off = turn.T @ (torch.tensor([square.x, square.y], dtype=torch.float64) / width - centre)
    intrinsics = torch.tensor(
        [
            [focal / side, 0, 0.5 - float(off[0]) / side],
            [0, focal / side, 0.5 - float(off[1]) / side],
            [0, 0, 1],
        ],
        dtype=torch.float64,
    )
    return join_label(pose @ turned, intrinsics[None])[0].float()


@torch.no_grad()
def exactly(
    scenes: Scenes, camera: Float[Tensor, "25"], size: int
) -> tuple[Float[Tensor, "1 size size"], Float[Tensor, "64 64"]]:
    """(mask, depth) of the head from a crop's camera, depth in the scale of that crop's label: there the crop
    has the customary focal length."""
    views = render_views(scenes, camera[None, None].to(scenes.points), size)
    mask = (views.alpha[0, :1].float() / 255 > COVERED).float()
    return mask.cpu(), views.depth[0, 0].float().cpu() * (float(camera[16]) / FOCAL)


def read_case(seed: int, photos: dict[str, Any], views: dict[str, Any], folder: Path) -> Case:
    """What the two functions above left in `folder`; photos to learn from in an order of the person's own,
    the most frontal one first."""
    album = read_album(folder / "album")
    learn = select(album, photos["learn"])
    first = nearest_to_front(learn)[0]
    chance = normals([seed], len(learn), stream=ORDER_STREAM)[0].argsort().tolist()
    order = [first, *(learn.names[i] for i in chance if learn.names[i] != first)]
    tensors, _ = read_tensors(folder / "views.safetensors", MAX_VIEWS_BYTES, remedy="delete its folder")
    moments = []
    for place, yaws in enumerate(views["yaws"]):
        image, mask, camera, depth = (
            tensors[f"{part}.{place}"] for part in ("image", "mask", "camera", "depth")
        )
        names = tuple(f"moment{place}_{index}_{yaw:+d}" for index, yaw in enumerate(yaws))
        moments.append(Moment(Album(image, camera, mask, names), tuple(yaws), depth))
    return Case(select(learn, order), select(album, photos["test"]), tuple(moments))
