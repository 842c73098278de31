"""Opening photos: whatever lies in the folder, a picture or one clear line."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from my3dgen.errors import PhotoError, UserError
from my3dgen.faces.photos import find_photos, open_photo


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.jpg", b"hello", "not a picture"),
        ("empty.jpg", b"", "an empty file"),
        ("IMG_1.HEIC", b"\0\0\0\x18ftypheic" + bytes(40), "save it as JPEG"),
        ("bomb.png", png_header(50000, 50000), "larger than 100 megapixels"),
        ("large.png", png_header(11000, 11000), r"larger than 100 megapixels \(121\)"),
        ("hollow.png", png_header(20, 20), "damaged or cut short"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotoError, match=message) as caught:
        open_photo(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_truncated_photo(tmp_path, astronaut):
    astronaut.save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:9000])
    with pytest.raises(PhotoError, match="damaged or cut short"):
        open_photo(tmp_path / "cut.jpg")


def test_an_animation(tmp_path, astronaut):
    small = astronaut.resize((32, 32))
    small.save(tmp_path / "a.gif", save_all=True, append_images=[small.transpose(0)])
    with pytest.raises(PhotoError, match="an animation"):
        open_photo(tmp_path / "a.gif")


def test_exif_orientation_turns_the_photo_upright(tmp_path, astronaut):
    small = astronaut.resize((64, 48))
    exif = Image.Exif()
    exif[0x112] = 6  # shown turned by 90 degrees clockwise
    small.rotate(90, expand=True).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(open_photo(tmp_path / "a.png")), np.asarray(small))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "I;16"])
def test_any_mode_becomes_rgb(tmp_path, astronaut, mode):
    small = astronaut.resize((32, 32))
    if mode == "I;16":
        deep = np.asarray(small.convert("L"), np.uint16) * 257
        small, image = small.convert("L"), Image.fromarray(deep)
    else:
        image = small.convert("L").convert("LA") if mode == "LA" else small.convert(mode)
        small = image if mode in ("L", "P", "1", "CMYK") else small
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    opened = open_photo(path)
    assert opened.mode == "RGB"
    if mode not in ("RGBA", "LA"):
        expected = np.asarray(small.convert("RGB"), float)
        assert np.abs(np.asarray(opened, float) - expected).mean() < 1.5


def test_transparent_parts_become_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert np.asarray(open_photo(tmp_path / "a.png")).min() == 255


def test_folders(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        find_photos(tmp_path / "nowhere")
    (tmp_path / "inside").mkdir()
    with pytest.raises(UserError, match=r"holds no photos.*1 folders"):
        find_photos(tmp_path)
    for name in ("b.JPG", "a.png", ".DS_Store", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    photos, others = find_photos(tmp_path)
    assert [p.name for p in photos] == ["a.png", "b.JPG"] and others == 1
    assert find_photos(tmp_path / "a.png") == ([tmp_path / "a.png"], 0)


@pytest.mark.parametrize("error", [RuntimeError, IndexError, KeyError, ValueError, OSError, SyntaxError])
def test_whatever_a_decoder_raises_is_a_refusal(tmp_path, monkeypatch, error):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)

    def fail(_):
        raise error("Failed to decode frame 0")

    monkeypatch.setattr("my3dgen.faces.photos.ImageOps.exif_transpose", fail)
    with pytest.raises(PhotoError, match="damaged or cut short"):
        open_photo(path)
