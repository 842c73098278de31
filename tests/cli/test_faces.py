"""`my3dgen faces` from a messy folder: an album of what is usable, a reason for the rest."""

import json

import pytest
from PIL import Image, ImageEnhance

from my3dgen.cli import main
from my3dgen.faces.album import read_album


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    face = Image.fromarray(data.astronaut()).crop((64, 0, 384, 320))
    face.save(folder / "plain.png")
    face.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirror.jpg", quality=95)
    exif = Image.Exif()
    exif[0x112] = 8
    ImageEnhance.Brightness(face).enhance(0.6).rotate(-90, expand=True).save(folder / "turned.png", exif=exif)
    face.resize((640, 640)).save(folder / "same.png")
    face.resize((200, 200)).save(folder / "tiny.png")
    Image.fromarray(data.coffee()).save(folder / "coffee.jpg")
    (folder / "text.jpg").write_text("not a picture")
    (folder / "notes.txt").write_text("not counted")
    return folder


def test_the_usable_photos_become_an_album(folder, tmp_path, capsys):
    out = tmp_path / "album"
    assert main(["faces", str(folder), "-o", str(out), "--resolution", "64", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["photos"], result["kept"], result["other_files"]) == (7, 3, 1)
    reasons = {d["file"]: d["reason"] for d in result["dropped"]}
    assert set(reasons) == {"same.png", "tiny.png", "coffee.jpg", "text.jpg"}
    assert "the same photo as plain.png" in reasons["same.png"]
    assert "face too small" in reasons["tiny.png"] and "no face found" in reasons["coffee.jpg"]
    assert "coffee.jpg: left out, no face found" in captured.err

    album = read_album(out)
    assert album.names == ("mirror.png", "plain.png", "turned.png")
    assert album.images.shape == (3, 3, 64, 64) and album.masks is not None
    # names decide what belongs together: the turned photo is the plain one, darker
    difference = (album.images[2] + 1) / 2 - 0.6 * (album.images[1] + 1) / 2
    assert difference.abs().mean() < 0.02
    assert abs(float(album.cameras[2, 3] - album.cameras[1, 3])) < 0.1

    report = json.loads((out / "report.json").read_text())
    assert [k["file"] for k in report["kept"]] == ["mirror.jpg", "plain.png", "turned.png"]
    assert all(k["smile"] > 0.7 for k in report["kept"])
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 600


def test_white_background(folder, tmp_path, capsys):
    out = tmp_path / "album"
    photo = str(folder / "plain.png")
    assert main(["faces", photo, "-o", str(out), "--resolution", "64", "--background", "white"]) == 0
    assert "1 of 1 photos" in capsys.readouterr().out
    album = read_album(out)
    assert album.masks is not None
    assert album.images[0, :, album.masks[0, 0] == 0].min() == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [([], "holds no photos"), (["text.jpg", "coffee.jpg"], "none of the 2 photos in")],
)
def test_nothing_usable_is_one_line_and_leaves_nothing(folder, tmp_path, capsys, files, message):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in files:
        (photos / name).write_bytes((folder / name).read_bytes())
    assert main(["faces", str(photos), "-o", str(tmp_path / "album")]) == 2
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("my3dgen: ") and message in last and captured.out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]


def test_an_occupied_folder_is_refused_before_any_work(folder, capsys):
    assert main(["faces", str(folder), "-o", str(folder)]) == 2
    assert "holds other things than an album" in capsys.readouterr().err
    assert main(["faces", str(folder), "-o", str(folder / "a"), "--resolution", "1"]) == 2
    assert "--resolution 1 is outside 64 to 2048" in capsys.readouterr().err


def test_photos_are_not_replaced_by_their_album(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_text("a photo")
    (photos / "dataset.json").write_text('{"labels": [["a.jpg", []]]}')
    for source in (photos, photos / "a.jpg"):
        assert main(["faces", str(source), "-o", str(photos)]) == 2
        assert "would replace the photos" in capsys.readouterr().err
    assert (photos / "a.jpg").read_text() == "a photo"
