"""Synthetic albums: planning, the truth beside them, and views of the truth."""

import json
import math
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from my3dgen.cameras import angles_from_camera, frontal_camera
from my3dgen.errors import FileFormatError, UserError
from my3dgen.synthetic import imaging, poses
from my3dgen.synthetic.album import (
    CHANGE_SPREADS,
    CHANGES_STREAM,
    Photo,
    Truth,
    plan_album,
    read_truth,
    write_album,
)
from my3dgen.synthetic.factors import FACTORS, HELD_OUT_SEEDS, PERFORMANCE, TRAIN_SEEDS, sample_factors
from my3dgen.synthetic.imaging import photograph
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

STRANGER = 1_000_000_007


def _drawn(truth: Truth, photo: Photo, camera: torch.Tensor) -> torch.Tensor:
    """The person as in a photo, `3 size size` in [-1, 1], without a phone's flaws."""
    views = render_views(build_scenes(truth.factors((photo,))), camera.view(1, 1, 25), truth.size)
    return views.rgb[0, 0].float() / 127.5 - 1


def test_plan() -> None:
    truth = plan_album(STRANGER, 60)
    assert truth == plan_album(STRANGER, 60)
    assert sum(photo.held_out for photo in truth.photos) == 10
    assert len({photo.name for photo in truth.photos}) == 60
    assert len({photo.expression for photo in truth.photos if photo.held_out}) > 3
    yaw, pitch = angles_from_camera(truth.cameras())
    assert 0.5 < yaw.abs().max() <= math.radians(45) + 1e-5
    assert yaw.mean().abs() < 0.1
    assert pitch.abs().max() < 0.36


def test_one_person_in_all_photos() -> None:
    factors = plan_album(STRANGER, 5).factors()
    person = sample_factors([STRANGER])
    for block, place in FACTORS.items():
        if block in PERFORMANCE:
            assert factors[:, place].std(0).min() > 0
        else:
            assert torch.equal(factors[:, place], person[:, place].expand(5, -1))


def test_the_person_changes_where_that_is_asked_for() -> None:
    still, moving = plan_album(STRANGER, 60), plan_album(STRANGER, 60, changes=1.0)
    assert still.photos == moving.photos
    apart = moving.factors() - still.factors()
    held_out = torch.tensor([photo.held_out for photo in moving.photos])
    assert not apart[held_out].any()
    for block, place in FACTORS.items():
        spread = apart[~held_out][:, place].std().item()
        assert spread == pytest.approx(CHANGE_SPREADS.get(block, 0), rel=0.2), block
    # not by the chance that makes a phone's flaws
    assert CHANGES_STREAM not in (imaging._STREAM, poses._STREAM, 0)
    # a photo by itself is as it is among all
    assert torch.equal(moving.factors((moving.photos[3],))[0], moving.factors()[3])
    with pytest.raises(UserError, match="--changes 5: choose"):
        plan_album(STRANGER, 6, changes=5.0)


@pytest.mark.parametrize(("photos", "size", "seed"), [(0, 384, 0), (5, 100, 0), (5, 384, -1)])
def test_plan_refuses(photos: int, size: int, seed: int) -> None:
    with pytest.raises(UserError, match="choose"):
        plan_album(seed, photos, size)


def test_album_and_its_truth(tmp_path: Path) -> None:
    planned = plan_album(STRANGER, 6, 64)
    planned = replace(planned, photos=planned.photos[-2:], changes=0.5)
    folder = write_album(tmp_path / "album", planned)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["album"]
    split = json.loads((folder / "split.json").read_text())
    assert split == {"learn": ["photo04.jpg"], "held_out": ["photo05.jpg"]}
    truth = read_truth(folder)
    assert truth == planned
    photo = truth.photos[0]
    with Image.open(folder / "photos" / photo.name) as image:
        taken = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 127.5 - 1
    assert (
        _drawn(truth, photo, truth.cameras()[0]) - taken
    ).square().mean() < 0.01  # blur, balance, noise and JPEG, nothing else
    assert (_drawn(truth, photo, frontal_camera())[:, 0, 0] > 0.99).all()
    with pytest.raises(UserError, match="not empty"):
        write_album(folder, planned)


def test_read_truth_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="missing"):
        read_truth(tmp_path / "truth.json")
    (tmp_path / "truth.json").write_text('{"seed": 1, "size": 64, "photos": [{"name": "a", "camera": [1]}]}')
    with pytest.raises(FileFormatError, match="not the truth"):
        read_truth(tmp_path)
    for changes in ("-1", "NaN", '"a"'):
        (tmp_path / "truth.json").write_text(f'{{"seed": 1, "size": 64, "changes": {changes}, "photos": []}}')
        with pytest.raises(FileFormatError, match="not the truth"):
            read_truth(tmp_path)


def test_photographs_keep_white_and_differ() -> None:
    rgb, alpha = torch.ones(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    alpha[..., 8:24] = 1
    rgb[..., 8:24] = 0.5
    taken = photograph(rgb, alpha, [1, 2])
    assert torch.equal(taken, photograph(rgb, alpha, [1, 2]))
    assert (taken[..., :5] > 0.999).all()
    person = taken[..., 10:22]
    assert 0.003 < person.std((2, 3)).mean() < 0.03
    assert (person.mean((2, 3)) - 0.5).abs().max() < 0.1
    assert (person[0].mean((1, 2)) - person[1].mean((1, 2))).abs().max() > 0.002


def test_bundled_album_is_the_generators() -> None:
    """The shipped photos and their truth belong together: the generator still draws this person so."""
    with resources.as_file(resources.files("my3dgen") / "weights" / "demo") as folder:
        truth = read_truth(folder)
        files = sorted((folder / "photos").iterdir())
        split = json.loads((folder / "split.json").read_text())
        assert truth == plan_album(truth.seed, 60)
        assert truth.seed not in TRAIN_SEEDS and truth.seed not in HELD_OUT_SEEDS
        assert [file.name for file in files] == [photo.name for photo in truth.photos]
        assert sum(file.stat().st_size for file in files) < 1_200_000
        assert (len(split["learn"]), len(split["held_out"])) == (50, 10)
        with Image.open(files[1]) as image:
            taken = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 127.5 - 1
    drawn = _drawn(truth, truth.photos[1], truth.cameras()[1])
    # 0.003 from blur, balance, noise and JPEG; another photo's expression and light would give 0.016
    assert (drawn - taken).square().mean() < 0.006
