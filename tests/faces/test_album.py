"""Albums on disk: a round trip, and one clear line for each way a folder can be wrong."""

import json

import pytest
import torch
from PIL import Image

from my3dgen.cameras import camera_from_angles
from my3dgen.errors import FileFormatError, UserError
from my3dgen.faces.album import Album, AlbumWriter, read_album, write_album


def make(names: tuple[str, ...], size: int = 16, masks: bool = True) -> Album:
    count = len(names)
    levels = torch.linspace(-1, 1, count * 3 * size * size).reshape(count, 3, size, size)
    return Album(
        images=(levels * 127.5).round() / 127.5,
        cameras=camera_from_angles(torch.linspace(-0.3, 0.3, count), 0.1),
        masks=torch.ones(count, 1, size, size) if masks else None,
        names=names,
    )


def test_round_trip(tmp_path):
    album = make(("a.png", "b.png", "c.png"))
    folder = write_album(tmp_path / "album", album, {"kept": 3}, Image.new("RGB", (8, 8)))
    again = read_album(folder)
    assert again.names == album.names and len(again) == 3 and again.folder == folder
    torch.testing.assert_close(again.images, album.images, rtol=0, atol=1 / 127)
    torch.testing.assert_close(again.cameras, album.cameras)
    assert again.masks is not None and again.masks.min() == 1
    assert json.loads((folder / "report.json").read_text()) == {"kept": 3}
    small = read_album(folder, 8)
    assert small.images.shape == (3, 3, 8, 8)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["album"]


def test_pictures_are_paired_by_name_not_by_order(tmp_path):
    album = make(("b.png", "a.png"), masks=False)
    again = read_album(write_album(tmp_path / "album", album))
    assert again.names == ("a.png", "b.png") and again.masks is None
    torch.testing.assert_close(again.cameras, album.cameras.flip(0))
    torch.testing.assert_close(again.images[0], album.images[1], rtol=0, atol=1 / 127)


def test_equal_names_do_not_overwrite_each_other(tmp_path):
    folder = write_album(tmp_path / "album", make(("x.jpg", "x.png", "x.jpeg")))
    assert read_album(folder).names == ("x-2.png", "x-3.png", "x.png")


def test_an_interrupted_writer_leaves_the_old_album(tmp_path):
    folder = write_album(tmp_path / "album", make(("a.png",)))
    with pytest.raises(KeyboardInterrupt), AlbumWriter(folder) as writer:
        writer.add("b.png", Image.new("RGB", (16, 16)), make(("b.png",)).cameras[0].tolist())
        raise KeyboardInterrupt
    assert read_album(folder).names == ("a.png",)
    assert [p.name for p in tmp_path.iterdir()] == ["album"]


def test_other_folders_are_not_overwritten(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="holds other things than an album"):
        write_album(tmp_path, make(("a.png",)))
    assert (tmp_path / "diary.txt").read_text() == "dear diary"


LABEL = camera_from_angles(0.0, 0.0)[0].tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no dataset.json; make an album with"),
        ("[]", "make it anew"),
        ('{"labels": null}', "make it anew"),
        ('{"labels": []}', "lists no pictures"),
        (json.dumps({"labels": [["a.png", LABEL], ["no.png", LABEL]]}), "names no.png, which does not exist"),
        (json.dumps({"labels": [["../a.png", LABEL]]}), "outside the folder"),
        (json.dumps({"labels": [["a.png", LABEL[:24]]]}), "a.png: the camera label"),
        (json.dumps({"labels": [["a.png", LABEL], ["b.png", LABEL]]}), "is not a picture"),
        (json.dumps({"labels": [["a.png", LABEL], ["wide.png", LABEL]]}), "is 20 x 10"),
        (json.dumps({"labels": [["a.png", LABEL], ["small.png", LABEL]]}), "others 16"),
    ],
)
def test_damaged_albums_are_refused_in_one_line(tmp_path, content, message):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "wide.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    (tmp_path / "b.png").write_text("not a picture")
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_album(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_names_the_remedy(tmp_path):
    with pytest.raises(FileFormatError, match="does not exist; make an album with: my3dgen faces"):
        read_album(tmp_path / "nowhere")


def test_a_photo_named_sheet_is_not_replaced_by_the_contact_sheet(tmp_path):
    folder = write_album(tmp_path / "album", make(("sheet.jpg", "a.jpg")), sheet=Image.new("RGB", (8, 4)))
    assert read_album(folder).names == ("a.png", "sheet-2.png")
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.size == (8, 4)


def test_an_album_with_other_things_in_it_is_not_replaced(tmp_path):
    folder = write_album(tmp_path / "album", make(("a.png",)), {}, Image.new("RGB", (8, 8)))
    write_album(folder, make(("b.png",)))
    (folder / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match=r"such as diary\.txt"):
        write_album(folder, make(("c.png",)))
    assert read_album(folder).names == ("b.png",)


def test_the_folder_one_stands_in_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", ".."):
        with pytest.raises(UserError, match="name a folder"):
            write_album(name, make(("a.png",)))


def test_labels_nested_without_end_are_one_clear_line(tmp_path):
    (tmp_path / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(FileFormatError, match="make it anew"):
        read_album(tmp_path)


def test_a_dataset_in_folders_is_not_replaced(tmp_path):
    (tmp_path / "00000").mkdir()
    (tmp_path / "00000" / "img0.png").touch()
    (tmp_path / "dataset.json").write_text('{"labels": [["00000/img0.png", []]]}')
    with pytest.raises(UserError, match="holds other things"):
        AlbumWriter(tmp_path)


def test_a_name_that_no_file_can_have(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": [["a\\u0000b.png", []]]}')
    with pytest.raises(FileFormatError, match="remove that entry"):
        read_album(tmp_path)
