from dataclasses import replace

import pytest
import torch

from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.errors import UserError
from my3dgen.targets import BOOST, feature_weights, targets_of, world_of


def test_masked_photos_are_put_on_white_where_the_prior_renders_white(tiny_prior, photos):
    masks = torch.zeros_like(photos.masks)
    masks[..., :20] = 1
    targets = targets_of(replace(photos, masks=masks), tiny_prior.config)
    assert (targets.images[..., 20:] == 1).all()
    assert torch.equal(targets.images[..., :20], photos.images[..., :20])
    black = replace(tiny_prior.config, white_back=False)
    assert torch.equal(targets_of(replace(photos, masks=masks), black).images, photos.images)


def test_sizes_and_weights(tiny_prior, photos):
    large = torch.nn.functional.interpolate(photos.images, scale_factor=2)
    targets = targets_of(replace(photos, images=large, masks=None), tiny_prior.config)
    assert targets.images.shape == photos.images.shape
    small, weights = targets.at(16)
    assert small.shape == (6, 3, 16, 16)
    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(6))
    assert targets.at(16)[0] is small
    one = targets.only(2)
    assert (len(one), one.names) == (1, ("c.png",))
    assert torch.equal(one.at(16)[0], small[2:3])


def test_eyes_and_mouth_weigh_most_where_the_camera_sees_them(tiny_prior):
    cameras = camera_from_angles(torch.tensor([0.0, 0.5]), 0.0)
    weights = feature_weights(cameras, 64, "mini")
    assert weights.max() <= 1 + BOOST
    rows, columns = (weights[0, 0] > 1 + 0.9 * BOOST).nonzero().T.tolist()
    eyes = [(r, c) for r, c in zip(rows, columns, strict=True) if r < 32]
    mouth = [(r, c) for r, c in zip(rows, columns, strict=True) if r >= 32]
    assert {c < 32 for _, c in eyes} == {True, False}  # one on each side
    assert abs(sum(c for _, c in mouth) / len(mouth) - 31.5) < 1  # in the middle
    assert not torch.equal(weights[0], weights[1])
    assert (weights[:, :, :4] < 1.01).all()


def test_worlds():
    assert (world_of(PRESETS["mini"]), world_of(PRESETS["ffhq512-128"])) == ("mini", "ffhq")


def test_an_empty_album_is_refused(tiny_prior, photos, tmp_path):
    nothing = replace(
        photos, images=photos.images[:0], cameras=photos.cameras[:0], masks=None, names=(), folder=tmp_path
    )
    with pytest.raises(UserError, match=r"has no photos; add some"):
        targets_of(nothing, tiny_prior.config)
