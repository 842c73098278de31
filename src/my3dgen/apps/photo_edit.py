"""Edit a photo of a person: found in their alpha-space, edited there, and what changed put into the photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from skimage.filters import apply_hysteresis_threshold
from torch import Tensor

from my3dgen.apps.edit import Edited, Space, draw_edit, find, plan_edit
from my3dgen.apps.edit_report import signed
from my3dgen.apps.enhance import Drawn, draw, scene_of
from my3dgen.apps.framed import Framed
from my3dgen.apps.membrane import membrane
from my3dgen.apps.sheet import sheet, to_image
from my3dgen.apps.subject import subject_of
from my3dgen.invert import QUALITIES, InvertConfig
from my3dgen.person import Person
from my3dgen.pivot import tune_on_photos
from my3dgen.place import place
from my3dgen.prior.store import Prior
from my3dgen.tune import TuneConfig

CHANGED = (0.12, 0.3)  # of the range -1 to 1: an edit moves shapes where colours change by the first, in
# patches where they somewhere change by the second
UNLIKE = 0.3  # of that range: where photo and rendering differ by more, they show different things
WHOLE = 0.9  # opacity: less of the person is an outline
NEAR, WIDE = 1 / 48, 1 / 10  # of the square's side: around a change, and as far as what it belongs to
SOFT = 0.06  # of the square's side: where an edit fades out at its border


@dataclass(frozen=True, eq=False)
class PhotoEdit:
    """A photo at several strengths of an edit."""

    unedited: Edited
    """What the person's model makes of the photo, at strength 0."""
    edits: tuple[Edited, ...]
    """As the model shows them: from the photo's camera first, then from the yaws asked for."""
    photos: tuple[Image.Image, ...]
    """The whole photo, edited."""


def edit_photo(
    prior: Prior,
    person: Person,
    framed: Framed,
    *,
    direction: str | Mapping[str, float | int] = "smile",
    strengths: Sequence[float | int] = (-2, -1, 0, 1, 2),
    space: Space = "w",
    beta: float | int = 0.03,
    keep_inside: bool = False,
    yaws: Sequence[float | int] = (),
    config: InvertConfig = QUALITIES["standard"],
    tune: TuneConfig | None = None,
) -> list[PhotoEdit]:
    """A photo edited in the person's alpha-space and, with `tune`, once more with an adapter bent around it
    (pivotal tuning). Other arguments are those of `my3dgen.apps.edit.edit`.

    What the edit changes little keeps the photo's own detail, the rest keeps at least its colours (see
    `put_back`). Raises UserError as `edit`, and PriorMismatchError.
    """
    wanted = find(prior, direction)
    subject = subject_of(prior, person)
    placed = place(prior, person, framed.album, replace(config, space="w"), beta=float(beta))
    plan = plan_edit(
        subject,
        placed.alphas[0, 0].to(subject.anchors),
        wanted,
        [0.0, *map(float, strengths)],
        space,
        float(beta),
        keep_inside,
    )
    turned = subject.camera(torch.tensor([float(yaw) for yaw in yaws]))
    cameras = torch.cat([placed.cameras.to(turned), turned])
    adapters = [person.adapter]
    if tune is not None:
        adapters += tune_on_photos(prior, person.adapter, framed.album, placed, tune)
    made = []
    for adapter in adapters:
        seen = replace(subject, adapter=adapter.to(subject.anchors.device))
        unedited, *edits = draw_edit(seen, plan, cameras)
        before, *after = (draw(prior, adapter, replace(placed, ws=ws.cpu())) for ws in plan.ws.split(1))
        photos = tuple(put_back(framed, before, one) for one in after)
        made.append(PhotoEdit(unedited, tuple(edits), photos))
    return made


def put_back(framed: Framed, before: Drawn, after: Drawn) -> Image.Image:
    """The whole photo with what an edit changes.

    The photo is its rendering plus a rest: detail, colours, whatever the person's model cannot say. The
    edited rendering gets the same rest, except where shapes have changed: there, and in what differs from
    the photo around it, the rest is a membrane between what it is nearby. An outline that is not quite where
    the photo's is differs, too, but is no shape that moved, and keeps its rest.
    """
    left, top, right, bottom = framed.window
    everywhere = torch.ones(1, bottom - top, right - left, dtype=torch.bool, device=before.image.device)
    old, new = scene_of(framed, before, everywhere), scene_of(framed, after, everywhere)
    rest, side = old.photo - old.picture, framed.square.side
    person = framed.paste(torch.minimum(before.opacity, after.opacity))[0].clamp(0, 1)
    moved = reshaped(new.picture - old.picture, person, side)
    other = grown(rest.abs().amax(0, keepdim=True) > UNLIKE, side * NEAR / 2)
    whole = person
    if framed.album.masks is not None:
        whole = torch.minimum(person, framed.paste(framed.album.masks.to(person))[0])
    outline = other & grown(whole < WHOLE, side * NEAR) & ~moved
    hole = moved | (other & ~outline & grown(moved, side * WIDE))
    edited = new.picture + torch.where(outline, rest, membrane(rest, ~(hole | outline)))
    result = old.photo + (new.depth / SOFT).clamp(0, 1) * (edited - old.photo)
    photo = framed.photo.copy()
    photo.paste(to_image(result), (left, top))
    return photo


def reshaped(
    change: Float[Tensor, "3 height width"], person: Float[Tensor, "1 height width"], side: float
) -> Bool[Tensor, "1 height width"]:
    """Where a change of colours in a square of `side` pixels is one of shapes, and close around.

    It is not where the light on the `person` (1 is) changes, which it does broadly, nor where an outline is
    off by a pixel.
    """
    broad = averaged(change * person, side * WIDE) / averaged(person, side * WIDE).clamp_min(1e-3)
    sharp = averaged((change - broad * person).abs().amax(0, keepdim=True), side * NEAR / 2)
    clear = apply_hysteresis_threshold(sharp[0].cpu().numpy(), *CHANGED)
    return grown(torch.from_numpy(clear)[None].to(change.device), side * NEAR)


def averaged(
    values: Float[Tensor, "channels height width"], reach: float
) -> Float[Tensor, "channels height width"]:
    """Means over squares that reach so many pixels to every side."""
    reach = max(1, round(reach))
    return F.avg_pool2d(values[None], 2 * reach + 1, 1, reach, count_include_pad=False)[0]


def grown(where: Bool[Tensor, "1 height width"], reach: float) -> Bool[Tensor, "1 height width"]:
    """Where something is, or is less than `reach` pixels away to the side, above or below."""
    reach = max(1, round(reach))
    wide = F.max_pool2d(where[None].float(), (1, 2 * reach + 1), 1, (0, reach))
    return F.max_pool2d(wide, (2 * reach + 1, 1), 1, (reach, 0))[0] > 0


def photo_edit_sheet(
    framed: Framed, made: Sequence[PhotoEdit], yaws: Sequence[float | int], word: str
) -> Image.Image:
    """What every model makes of the photo's square, above the edited photo; below, the last one's `yaws`
    (degrees). The first column is unedited."""
    photo, rows, titles = to_image(framed.album.images[0]), [], []
    for one, name in zip(made, ("in alpha-space", "tuned on the photo"), strict=False):
        rows.append([edit.image for edit in (one.unedited, *one.edits)])
        rows.append([photo, *(to_image(framed.cut(picture)) for picture in one.photos)])
        titles += [name, "in the photo"]
    for index, yaw in enumerate(yaws, start=1):
        rows.append([edit.views[index] for edit in (made[-1].unedited, *made[-1].edits)])
        titles.append(f"yaw {signed(yaw)}°")
    below = ["unedited", *(f"{word} {signed(edit.strength)}" for edit in made[-1].edits)]
    captions = [""] * (len(rows) - 1) * len(below) + below
    images = [picture for row in rows for picture in row]
    return sheet(images, captions, columns=len(below), row_titles=titles, cell=photo.width)
