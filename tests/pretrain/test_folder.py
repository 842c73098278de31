"""A dataset folder as training pictures: bytes and cameras as in the files, errors named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from my3dgen.cameras import camera_from_angles, mirror_camera
from my3dgen.errors import FileFormatError
from my3dgen.pretrain.folder import FolderPool

CPU = torch.device("cpu")
CAMERAS = camera_from_angles(torch.linspace(-0.6, 0.5, 5), 0.1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five pictures; the left half's grey, 0 to 240, tells which one it is, and the right half is lighter."""
    folder = tmp_path / "data"
    (folder / "00000").mkdir(parents=True)
    labels = []
    for i in range(5):
        pixels = np.full((16, 16, 3), 40 * i, np.uint8)
        pixels[:, 8:] += 20
        name = f"00000/img{i:08d}.png"
        Image.fromarray(pixels).save(folder / name)
        labels.append([name, CAMERAS[i].tolist()])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels[::-1]}))
    return folder


def _pool(data: Path, keep: Path, size: int = 16, gigabytes: float = 1.0, **others) -> FolderPool:
    return FolderPool(data, size, CPU, gigabytes=gigabytes, keep=keep, **others)


def _number(image: torch.Tensor) -> tuple[int, bool]:
    """(which picture, whether mirrored)."""
    left, right = ((half + 1) * 127.5 for half in (image[0, 4, 4], image[0, 4, 12]))
    return round(float(torch.minimum(left, right))) // 40, bool(left > right)


def test_pictures_and_cameras_stay_together_mirrored_or_not(data: Path, tmp_path: Path) -> None:
    batch = _pool(data, tmp_path).draw(64, torch.Generator().manual_seed(0))
    seen = set()
    for image, camera in zip(batch.real, batch.real_camera, strict=True):
        number, mirrored = _number(image)
        wanted = CAMERAS[number : number + 1]
        torch.testing.assert_close(camera[None], mirror_camera(wanted) if mirrored else wanted)
        seen.add((number, mirrored))
    assert len(seen) == 10
    both = {tuple(row) for row in torch.cat([CAMERAS, mirror_camera(CAMERAS)]).tolist()}
    for cameras in (batch.camera, batch.other_camera):
        assert {tuple(row) for row in cameras.tolist()} == both
    assert not torch.equal(batch.camera, batch.other_camera)


def test_what_does_not_fit_is_mapped_and_found_again(data: Path, tmp_path: Path, monkeypatch) -> None:
    keep = tmp_path / "state"
    inside = _pool(data, keep)
    assert not keep.exists()
    mapped = _pool(data, keep, gigabytes=0.0)
    assert torch.equal(mapped.images, inside.images)
    (first,) = keep.iterdir()
    assert first.stat().st_size == mapped.bytes == 5 * 3 * 16 * 16
    with monkeypatch.context() as patched:  # not decoded again
        patched.setattr("my3dgen.pretrain.folder.decode", None)
        assert torch.equal(_pool(data, keep, gigabytes=0.0).images, inside.images)
    Image.new("RGB", (16, 16), "red").save(data / "00000/img00000002.png")
    changed = _pool(data, keep, gigabytes=0.0)
    assert changed.images[2, :, 0, 0].tolist() == [255, 0, 0]
    assert len(list(keep.iterdir())) == 1 and not first.exists()


def test_pictures_are_reduced_without_aliasing(data: Path, tmp_path: Path, capsys) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(data / "00000/img00000000.png")
    pool = _pool(data, tmp_path)
    assert pool.images[0, :, :, 2:-2].float().sub(100).abs().max() <= 3
    assert "enlarged" not in capsys.readouterr().err
    _pool(data, tmp_path, size=32)
    assert "4 of 5 pictures are smaller than 32 pixels" in capsys.readouterr().err


def test_the_folder_of_a_synthetic_dataset_will_do(data: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    data.rename(outer / "images")
    assert len(_pool(outer, tmp_path)) == 5


def test_a_wide_picture_is_refused(data: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16, 12)).save(data / "00000/img00000003.png")
    with pytest.raises(FileFormatError, match=r"img00000003\.png is 16 x 12"):
        _pool(data, tmp_path)


@pytest.mark.parametrize("gigabytes", [1.0, 0.0])
def test_a_damaged_picture_is_named_and_leaves_nothing(data: Path, tmp_path: Path, gigabytes: float) -> None:
    (data / "00000/img00000001.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    with pytest.raises(FileFormatError, match=r"img00000001\.png: "):
        _pool(data, tmp_path / "state", gigabytes=gigabytes)
    assert not list(tmp_path.glob("state/*"))


@pytest.mark.parametrize(
    ("label", "problem"),
    [([1.0] * 24, "not a list of 25 numbers"), ([0.0] * 25, "last row is not 0 0 0 1"), (None, "not a list")],
)
def test_a_bad_label_is_named(data: Path, tmp_path: Path, label: object, problem: str) -> None:
    content = json.loads((data / "dataset.json").read_text())
    content["labels"][0][1] = label
    (data / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match=rf"img00000004\.png: .*{problem}"):
        _pool(data, tmp_path)


@pytest.mark.parametrize("missing", ["folder", "dataset.json"])
def test_what_is_no_dataset_says_what_one_is(data: Path, tmp_path: Path, missing: str) -> None:
    (data / "dataset.json").unlink()
    with pytest.raises(FileFormatError, match="give --data the folder of a dataset in EG3D's format"):
        _pool(data if missing == "dataset.json" else tmp_path / "nowhere", tmp_path)


def test_it_stops_when_asked(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _pool(data, tmp_path, stopped=lambda: True)
