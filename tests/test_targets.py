from dataclasses import replace

import pytest
import torch

from my3dgen.errors import UserError
from my3dgen.targets import targets_of


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
    torch.testing.assert_close(weights, torch.ones(6, 1, 16, 16))
    assert targets.at(16)[0] is small
    one = targets.only(2)
    assert (len(one), one.names) == (1, ("c.png",))
    assert torch.equal(one.at(16)[0], small[2:3])


def test_an_empty_album_is_refused(tiny_prior, photos, tmp_path):
    nothing = replace(
        photos, images=photos.images[:0], cameras=photos.cameras[:0], masks=None, names=(), folder=tmp_path
    )
    with pytest.raises(UserError, match=r"has no photos; add some"):
        targets_of(nothing, tiny_prior.config)
