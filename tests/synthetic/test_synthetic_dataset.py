"""Synthetic datasets: EG3D's layout, labels that fit, and going on after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from my3dgen.cameras import angles_from_camera, mirror_camera
from my3dgen.cli import main
from my3dgen.errors import UserError
from my3dgen.faces.album import Album, read_album, write_album
from my3dgen.synthetic.dataset import DatasetConfig, scene_factors, write_dataset
from my3dgen.synthetic.factors import FACTORS, sample_factors
from my3dgen.synthetic.poses import dataset_cameras

CONFIG = DatasetConfig(identities=2, views=2, resolution=64, first_seed=1_000_000_100)


def test_dataset_and_resume(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "heads", CONFIG, batch=2)
    images = folder / "images"
    labels = json.loads((images / "dataset.json").read_text())["labels"]
    assert [name for name, _ in labels] == [f"00000/img{k:08d}.png" for k in range(4)]
    factors = load_file(folder / "factors.safetensors")
    assert torch.equal(factors["factors"][::2], sample_factors([1_000_000_100, 1_000_000_101]))
    assert factors["seed"].tolist() == [1_000_000_100] * 2 + [1_000_000_101] * 2
    album = read_album(images)
    assert album.images.shape == (4, 3, 64, 64)

    # EG3D's loader takes every picture below its folder: each needs a label, one size and three channels
    found = {p.relative_to(images).as_posix() for p in images.rglob("*") if p.is_file()}
    assert found == {name for name, _ in labels} | {"dataset.json"}
    for name, label in labels:
        with Image.open(images / name) as image:
            assert (image.mode, image.size, len(label)) == ("RGB", (64, 64), 25)

    mask = np.asarray(Image.open(folder / "masks/00000/img00000000.png"))
    depth = np.asarray(Image.open(folder / "depth/00000/img00000000.png")) * 1e-4
    parts = np.asarray(Image.open(folder / "parts/00000/img00000000.png"))
    assert ((depth > 0) == (mask > 0)).mean() > 0.98
    assert 2.0 < depth[mask == 255].min() < depth.max() < 3.4
    assert set(np.unique(parts)) >= {0, 1}
    assert ((parts > 0) == (mask > 127)).mean() > 0.95

    before = {p.name: p.read_bytes() for p in (images / "00000").iterdir()}
    # as a stop while the second scene was written leaves it
    (images / "dataset.json").unlink()
    (images / "00000" / "img00000003.png").unlink()
    (folder / "progress.jsonl").write_text(json.dumps(labels[:2]) + "\n[[" + '"00000/im')
    write_dataset(folder, CONFIG)
    assert json.loads((images / "dataset.json").read_text())["labels"] == labels
    assert {p.name for p in (images / "00000").iterdir()} == set(before)
    again = np.asarray(Image.open(images / "00000" / "img00000003.png")).astype(int)
    first = (album.images[3].permute(1, 2, 0).numpy() * 127.5 + 128).astype(int)
    assert np.abs(again - first).mean() < 1.0  # rendered alone instead of in a batch
    assert not (folder / "progress.jsonl").exists()
    with pytest.raises(UserError, match=r"config\.json"):
        write_dataset(folder, DatasetConfig(identities=3, views=2, resolution=64))


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--identities 1 --views 1 --resolution 64 --json"
    assert main(["synthetic", "dataset", str(tmp_path / "heads"), *options.split()]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["pictures"] == 1 and result["images"] == str(tmp_path / "heads" / "images")
    assert len(read_album(result["images"])) == 1


def test_labels_round_trip_with_mirrored_views(tmp_path: Path) -> None:
    """EG3D spec 9, test 7: what is written to dataset.json is read back; its mirror reflects the camera."""
    cameras = dataset_cameras([3, 4], 3).flatten(0, 1)
    views = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both = Album(
        torch.cat([views, views.flip(3)]),
        torch.cat([cameras, mirror_camera(cameras)]),
        None,
        tuple(f"{k:02d}.png" for k in range(12)),
    )
    album = read_album(write_album(tmp_path / "both", both))
    assert torch.equal(album.cameras, both.cameras)
    assert torch.equal(album.images[:6], album.images[6:].flip(3))
    before, after = (c[:, :16].view(-1, 4, 4) for c in album.cameras.split(6))
    across = torch.diag(torch.tensor([-1.0, 1, 1, 1]))  # the world's YZ plane; the image's x axis turns too
    torch.testing.assert_close(after, across @ before @ across)
    assert torch.equal(album.cameras[:6, 16:], album.cameras[6:, 16:])


def test_refuses(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="other things"):
        write_dataset(tmp_path, CONFIG)
    with pytest.raises(UserError, match="--views"):
        write_dataset(tmp_path / "new", DatasetConfig(identities=1, views=0))
    with pytest.raises(UserError, match="--resolution"):
        write_dataset(tmp_path / "new", DatasetConfig(identities=1, resolution=100))
    assert not (tmp_path / "new").exists()


def test_expressions_of_one_person() -> None:
    config = DatasetConfig(identities=2, expressions=3)
    factors = scene_factors(config, range(6)).view(2, 3, -1)
    assert torch.equal(factors[0, 0], sample_factors([0])[0])
    assert torch.equal(factors[:, 0, FACTORS["shape"]], factors[:, 2, FACTORS["shape"]])
    assert (factors[:, 0, FACTORS["expression"]] != factors[:, 1, FACTORS["expression"]]).all()


def test_cameras_follow_the_training_poses() -> None:
    cameras = dataset_cameras(list(range(1000)), 4)
    assert torch.equal(cameras[7:8], dataset_cameras([7], 4))
    yaw, pitch = angles_from_camera(cameras.flatten(0, 1))
    assert yaw.abs().max() <= 1.1501
    assert 0.38 < yaw.std() < 0.52
    assert (pitch.mean() - 0.02).abs() < 0.01
    assert (yaw.abs() > 0.7).float().mean() > 0.1
