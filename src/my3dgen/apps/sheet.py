"""Contact sheets: images in a grid, with captions, row titles and a title, on white paper."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from my3dgen.errors import UserError
from my3dgen.output import check_output, whole

PAPER = (255, 255, 255)
INK = (32, 33, 36)
QUIET = (95, 99, 104)
ABSENT = str.maketrans({"\u2212": "-", "\u2192": ">", "\u03b2": "beta"})  # not in Pillow's font
SIDE_LIMIT = 16384  # pixels: beyond this viewers and browsers refuse to open the picture
LOSSY = (".jpg", ".jpeg", ".webp")
PICTURES = (".png", *LOSSY, ".tif", ".tiff", ".bmp", ".gif")


def to_image(image: Float[Tensor, "3 height width"] | Float[Tensor, "1 3 height width"]) -> Image.Image:
    """An RGB tensor in [-1, 1] as an 8-bit picture: x * 127.5 + 128, clamped, truncated (EG3D spec 1.14)."""
    pixels = image.detach().reshape(3, *image.shape[-2:]).float()
    pixels = (pixels * 127.5 + 128).clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def to_grey(
    values: Float[Tensor, "1 height width"] | Float[Tensor, "1 1 height width"],
    low: float,
    high: float,
) -> Image.Image:
    """A map such as depth as an RGB grey picture: `low` is black, `high` is white."""
    scaled = (values.detach().float() - low) / max(high - low, 1e-12) * 2 - 1
    return to_image(scaled.reshape(1, *values.shape[-2:]).expand(3, -1, -1).clamp(-1, 1))


def sheet(
    images: Sequence[Image.Image | Tensor],
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    row_titles: Sequence[str] | None = None,
    title: str | None = None,
    cell: int = 256,
) -> Image.Image:
    """Lay images out in rows, left to right, each fitted into a square of `cell` pixels.

    Tensors are RGB in [-1, 1]. `captions` stand below the images, one each ('' for none);
    `row_titles` stand left of the rows. Without `columns` up to six images make one row and
    more make a nearly square grid. Text grows with `cell` and long lines are cut with an ellipsis.

    Raises UserError when the sheet would be larger than 16384 pixels on a side, and ValueError
    when the counts do not fit.
    """
    if not images:
        raise ValueError("a sheet needs at least one image")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(images)} images but {len(captions)} captions")
    columns = columns or (len(images) if len(images) <= 6 else _nearly_square(len(images)))
    rows = -(-len(images) // columns)
    if row_titles is not None and len(row_titles) != rows:
        raise ValueError(f"{rows} rows but {len(row_titles)} row titles")

    small, large = max(11, round(cell * 0.065)), max(14, round(cell * 0.1))
    text, heading = ImageFont.load_default(size=small), ImageFont.load_default(size=large)
    gap, margin = max(4, round(cell * 0.05)), max(8, round(cell * 0.1))
    line = round(small * 1.35)
    below = round(small * 0.45) + line if captions and any(captions) else 0
    above = round(large * 1.9) if title else 0
    side = 0
    if row_titles:
        side = round(min(max(text.getlength(t) for t in row_titles), cell * 1.2)) + margin

    width = 2 * margin + side + columns * cell + (columns - 1) * gap
    height = 2 * margin + above + rows * (cell + below) + (rows - 1) * gap
    if max(width, height) > SIDE_LIMIT:
        raise UserError(
            f"a sheet of {len(images)} images of {cell} pixels would be {width} x {height}; "
            f"{SIDE_LIMIT} a side is the limit: ask for fewer or smaller images"
        )
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((margin, margin), _shorten(title, heading, width - 2 * margin), INK, heading)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        left = margin + side + column * (cell + gap)
        top = margin + above + row * (cell + below + gap)
        picture = _fit(image, cell)
        page.paste(picture, (left + (cell - picture.width) // 2, top + (cell - picture.height) // 2))
        if captions and captions[index]:
            words = _shorten(captions[index], text, cell + gap / 2)
            draw.text((left + cell / 2, top + cell + below - line), words, QUIET, text, anchor="ma")
        if row_titles and column == 0:
            words = _shorten(row_titles[row], text, side - margin / 2)
            draw.text((margin, top + cell / 2), words, INK, text, anchor="lm")
    return page


def save_image(image: Image.Image, path: str | os.PathLike, *, quality: int = 95) -> Path:
    """Write a picture beside its place and rename it there; the suffix chooses the format.

    `quality`, 1 to 95, counts where the format loses something. Missing folders are made. Raises UserError as
    `check_picture`.
    """
    path = check_picture(path)
    options: dict[str, Any] = {"quality": quality} if path.suffix.lower() in LOSSY else {}
    with whole(path) as beside:
        image.save(beside, **options)
    return path


def check_picture(path: str | os.PathLike) -> Path:
    """The path, if a picture can be written there. Raises UserError, before any work is done."""
    return check_output(path, PICTURES, f"a picture ends in {', '.join(PICTURES)}")


def _nearly_square(count: int) -> int:
    """Columns of a grid a little wider than high, preferring one without gaps in the last row."""
    start = round((count * 1.5) ** 0.5)
    return next((c for c in (start, start + 1, start - 1, start + 2) if count % c == 0), start)


def _fit(image: Image.Image | Tensor, cell: int) -> Image.Image:
    picture = to_image(image) if isinstance(image, Tensor) else image.convert("RGB")
    scale = cell / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def _shorten(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float | int) -> str:
    words = words.translate(ABSENT)
    if font.getlength(words) <= room:
        return words
    while words and font.getlength(words + "...") > room:
        words = words[:-1]
    return words.rstrip() + "..."
