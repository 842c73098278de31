"""Synthetic datasets: EG3D's layout, labels that fit, and going on after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from my3dgen.cameras import angles_from_camera
from my3dgen.errors import UserError
from my3dgen.faces.album import read_album
from my3dgen.synthetic.dataset import DatasetConfig, scene_factors, write_dataset
from my3dgen.synthetic.factors import FACTORS, sample_factors
from my3dgen.synthetic.poses import dataset_cameras

CONFIG = DatasetConfig(identities=2, views=2, resolution=64, first_seed=1_000_000_100)


def test_dataset_and_resume(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "heads", CONFIG, batch=2)
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert [name for name, _ in labels] == [f"00000/img{k:08d}.png" for k in range(4)]
    factors = load_file(folder / "factors.safetensors")
    assert torch.equal(factors["factors"][::2], sample_factors([1_000_000_100, 1_000_000_101]))
    assert factors["seed"].tolist() == [1_000_000_100] * 2 + [1_000_000_101] * 2
    album = read_album(folder)
    assert album.images.shape == (4, 3, 64, 64)

    mask = np.asarray(Image.open(folder / "masks/00000/img00000000.png"))
    depth = np.asarray(Image.open(folder / "depth/00000/img00000000.png")) * 1e-4
    parts = np.asarray(Image.open(folder / "parts/00000/img00000000.png"))
    assert ((depth > 0) == (mask > 0)).mean() > 0.98
    assert 2.0 < depth[mask == 255].min() < depth.max() < 3.4
    assert set(np.unique(parts)) >= {0, 1}
    assert ((parts > 0) == (mask > 127)).mean() > 0.95

    before = {p.name: p.read_bytes() for p in (folder / "00000").iterdir()}
    # as a stop while the second scene was written leaves it
    (folder / "dataset.json").unlink()
    (folder / "00000" / "img00000003.png").unlink()
    (folder / "progress.jsonl").write_text(json.dumps(labels[:2]) + "\n[[" + '"00000/im')
    write_dataset(folder, CONFIG)
    assert json.loads((folder / "dataset.json").read_text())["labels"] == labels
    assert {p.name for p in (folder / "00000").iterdir()} == set(before)
    again = np.asarray(Image.open(folder / "00000" / "img00000003.png")).astype(int)
    first = (album.images[3].permute(1, 2, 0).numpy() * 127.5 + 128).astype(int)
    assert np.abs(again - first).mean() < 1.0  # rendered alone instead of in a batch
    assert not (folder / "progress.jsonl").exists()
    with pytest.raises(UserError, match=r"config\.json"):
        write_dataset(folder, DatasetConfig(identities=3, views=2, resolution=64))


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
