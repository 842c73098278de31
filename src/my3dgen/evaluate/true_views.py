"""What a synthetic person looks like from sides that nobody photographed: moments, kept in one file.

A true view is cropped as any photo is, but its mask and depth are exact: the head is drawn once more by the
camera of the crop itself (`crop_camera`). Those cameras also say how the views lie to one another. A method
places the head by what it is shown, the source; from there the other views are reached by the true turns
(`seen_from`), so no error of an estimated camera counts as the method's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from my3dgen.cameras import FOCAL, camera_from_angles, join_label, split_label
from my3dgen.errors import PhotoError, UserError
from my3dgen.faces.album import Album
from my3dgen.faces.align import Square
from my3dgen.faces.build import pixels, portrait
from my3dgen.prior.store import Prior
from my3dgen.progress import track
from my3dgen.synthetic.album import Truth
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import Scenes, build_scenes
from my3dgen.targets import world_of
from my3dgen.tensor_file import read_tensors, write_tensors

WIDER = 1.5  # sides of the crop that a true view shows
MAX_BYTES = 1 << 30
COVERED = 0.02
"""Share of a pixel above which it is the head's: soft edges belong to it."""
PARTS = ("image", "mask", "camera", "exact", "depth")


@dataclass(frozen=True, eq=False)
class Moment:
    """One appearance, seen from several sides."""

    album: Album
    """Views in the order of their yaws; masks are exact, cameras found as those of any photo."""
    yaws: tuple[int, ...]
    """Degrees."""
    exact: Float[Tensor, "views 25"]
    """The cameras of the crops in the scene."""
    depth: Float[Tensor, "views 64 64"]
    """Distance along the crop's rays in the scene, 0 where there is no head."""

    @property
    def source(self) -> int:
        """Place of the frontal view, from which the others are to be told."""
        return self.yaws.index(0)


def make_moments(
    truth: Truth, photos: Sequence[str], yaws: Sequence[int], count: int, prior: Prior, path: Path
) -> dict[str, Any]:
    """True views of `count` moments of a synthetic album, written to `path`.

    Moments are those of `photos`, in this order; one whose frontal view is no usable photo, or whose only
    one, is passed over. Returns what `read_moments` needs and `dropped`, a line for each view left out.
    Raises UserError if there is no moment at all.
    """
    kept: list[dict[str, Any]] = []
    dropped: list[str] = []
    tensors: dict[str, Tensor] = {}
    for photo in track(photos, "true views"):
        if len(kept) == count:
            break
        views, problems = take(truth, photo, yaws, prior)
        dropped += problems
        if 0 not in views or len(views) < 2:
            continue
        for part, column in zip(PARTS, zip(*views.values(), strict=True), strict=True):
            tensors[f"{part}.{len(kept)}"] = torch.stack(column)
        kept.append({"photo": photo, "yaws": list(views)})
    if not kept:
        raise UserError(f"no true view of the person {truth.seed} is usable ({dropped[0]})")
    write_tensors(path, tensors, {})
    return {"moments": kept, "dropped": dropped}


def read_moments(made: Mapping[str, Any], path: Path) -> list[Moment]:
    """What `make_moments` returned and left at `path`."""
    tensors, _ = read_tensors(path, MAX_BYTES, remedy="delete its folder")
    moments = []
    for place, entry in enumerate(made["moments"]):
        image, mask, camera, exact, depth = (tensors[f"{part}.{place}"] for part in PARTS)
        stem, yaws = Path(entry["photo"]).stem, entry["yaws"]
        names = tuple(f"{stem}_{index}_yaw{yaw:+03d}.png" for index, yaw in enumerate(yaws))
        moments.append(Moment(Album(image, camera, mask, names), tuple(yaws), exact, depth))
    return moments


def take(
    truth: Truth, photo: str, yaws: Sequence[int], prior: Prior
) -> tuple[dict[int, tuple[Tensor, ...]], list[str]]:
    """The usable views of a moment by their yaws, each with its `PARTS`, and a line for each other one."""
    config, scenes = prior.config, scene_of(truth, photo, prior.generator.w_avg.device)
    views: dict[int, tuple[Tensor, ...]] = {}
    dropped = []
    for yaw, camera in zip(yaws, wide_cameras(yaws), strict=True):
        # faces are found in no smaller photos
        shot = photograph(scenes, camera, max(256, config.img_resolution))
        try:
            found = portrait(shot, config.img_resolution, world=world_of(config))
        except PhotoError as error:
            dropped.append(f"{photo} {yaw:+d}: {error}")
            continue
        exact = crop_camera(camera, found.square, shot.width)
        mask, depth = exactly(scenes, exact, config.img_resolution)
        views[yaw] = pixels(found.image), mask, found.camera, exact, depth
    return views, dropped


def scene_of(truth: Truth, photo: str, device: torch.device | str = "cpu") -> Scenes:
    """The person as in a photo. Raises KeyError for a photo that is not there."""
    shown = tuple(entry for entry in truth.photos if entry.name == photo)
    if not shown:
        raise KeyError(photo)
    return build_scenes(truth.factors(shown).to(device), device)


def wide_cameras(yaws: Sequence[int]) -> Float[Tensor, "views 25"]:
    """Cameras at yaws in degrees that see `WIDER` than a crop."""
    angles = torch.deg2rad(torch.tensor(yaws, dtype=torch.float32))
    return camera_from_angles(angles, 0.0, focal=FOCAL / WIDER)


def photograph(scenes: Scenes, camera: Float[Tensor, "25"], size: int) -> Image.Image:
    """A picture that shows more than a crop of `size` pixels needs, at its scale."""
    view = render_views(scenes, camera[None, None].to(scenes.points), round(size * WIDER))
    return Image.fromarray(view.rgb[0, 0].permute(1, 2, 0).cpu().numpy())


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
    """(mask, depth) of the head from a crop's camera."""
    views = render_views(scenes, camera[None, None].to(scenes.points), size)
    mask = (views.alpha[0, :1].float() / 255 > COVERED).float()
    return mask.cpu(), views.depth[0, 0].float().cpu()


def seen_from(
    found: Float[Tensor, "25"], exact: Float[Tensor, "views 25"], source: int
) -> Float[Tensor, "views 25"]:
    """The cameras of all views in a world where the source's camera is `found`.

    The views keep their true turns, and their zooms, against the source. Heads of that world are as many
    times larger as the source's focal length is longer than that of `found`.
    """
    poses, lenses = split_label(aimed(exact.double()))
    (place,), (lens,) = split_label(aimed(found[None].double()))
    scaled = lenses.clone()
    scaled[:, :2, :2] *= lens[0, 0] / lenses[source, 0, 0]
    return join_label(place @ torch.linalg.inv(poses[source]) @ poses, scaled).to(found)


def aimed(cameras: Float[Tensor, "views 25"]) -> Float[Tensor, "views 25"]:
    """Cameras turned to look through the middle of their pictures, which stay the same but for their
    perspective: a few thousandths of a picture where the middle was a tenth of it aside."""
    poses, lenses = split_label(cameras)
    off = (0.5 - lenses[:, :2, 2]) / lenses[:, [0, 1], [0, 1]]
    forward = torch.nn.functional.normalize(torch.cat([off, torch.ones_like(off[:, :1])], 1), dim=1)
    x, y, z = forward.unbind(1)
    # the shortest turn from (0, 0, 1) to `forward`
    rows = (1 - x * x / (1 + z), -x * y / (1 + z), x, -x * y / (1 + z), 1 - y * y / (1 + z), y, -x, -y, z)
    turned = poses.clone()
    turned[:, :3, :3] = poses[:, :3, :3] @ torch.stack(rows, 1).unflatten(1, (3, 3))
    centred = lenses.clone()
    centred[:, :2, 2] = 0.5
    return join_label(turned, centred)
