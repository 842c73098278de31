"""Opening people's photos safely: any common format, upright, in sRGB; one clear line when it fails."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from my3dgen.errors import PhotoError, UserError

READ = (".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2")
PHOTO_SUFFIXES = (*READ, ".heic", ".heif")  # the last two are refused with a remedy
LARGEST = 100_000_000  # pixels
HEIC_REMEDY = "HEIC cannot be read; save it as JPEG (iPhone: Settings > Camera > Formats > Most Compatible)"


def find_photos(path: str | os.PathLike) -> tuple[list[Path], int]:
    """(photos, others): the photo files in a folder by name, and how many other files there are.

    A photo's suffix decides; hidden files do not count and folders inside are not searched. A single
    file is taken as it is. Raises UserError when there is nothing to read.
    """
    path = Path(path)
    if path.is_file():
        return [path], 0
    if not path.is_dir():
        raise UserError(f"{path} does not exist; give a folder of photos")
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    photos = [p for p in files if p.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        inside = sum(1 for p in path.iterdir() if p.is_dir())
        hint = f" (it has {inside} folders, which are not searched)" if inside else ""
        raise UserError(f"{path} holds no photos{hint}; put JPEG or PNG photos there")
    return photos, len(files) - len(photos)


def open_photo(path: str | os.PathLike) -> Image.Image:
    """One photo, turned upright by its EXIF tag, converted to sRGB, transparent parts white.

    Raises PhotoError, whose message says why without naming the file, when it cannot be used.
    """
    path = Path(path)
    with _refusals(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours
        warnings.filterwarnings("ignore", module="PIL")  # odd but readable EXIF
        with Image.open(path) as image:
            if image.width * image.height > LARGEST:
                size = image.width * image.height / 1e6
                raise PhotoError(f"larger than 100 megapixels ({size:.0f}); make it smaller")
            # MPO is what many phones call a JPEG with a second view
            if getattr(image, "n_frames", 1) > 1 and image.format not in ("MPO", "TIFF"):
                raise PhotoError("an animation; save the best frame as a photo")
            image.load()
            return _srgb(ImageOps.exif_transpose(image))


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn what Pillow raises on bad files into a PhotoError."""
    try:
        yield
    except UnidentifiedImageError as error:
        with path.open("rb") as stream:
            head = stream.read(16)
        if not head:
            raise PhotoError("an empty file; copy it again") from error
        if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heif", b"hevc", b"mif1", b"msf1"):
            raise PhotoError(HEIC_REMEDY) from error
        raise PhotoError("not a picture, whatever its name says; remove it") from error
    except Image.DecompressionBombError as error:
        raise PhotoError("larger than 100 megapixels; make it smaller") from error
    except PermissionError as error:
        raise PhotoError("may not be read; change its permissions") from error
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, RuntimeError) as error:
        raise PhotoError("damaged or cut short; copy it again") from error


def _srgb(image: Image.Image) -> Image.Image:
    """8-bit sRGB from any mode; wide-gamut photos (Display P3) keep their look."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):  # deeper than 8 bits, grey
        values = np.asarray(image, dtype=np.float32)
        top = 1.0 if values.max() <= 1 else 255.0 if values.max() <= 255 else max(65535.0, values.max())
        return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: take the numbers as they are
    return image.convert("RGB")
