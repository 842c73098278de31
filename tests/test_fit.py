from dataclasses import replace

import pytest
import torch

from my3dgen.camera_refine import move_cameras
from my3dgen.errors import UserError
from my3dgen.fit import Looks, Stage, distance, fit
from my3dgen.latents import LatentStatistics, WSpace
from my3dgen.losses import shrink
from my3dgen.perceptual import load_perceptual
from my3dgen.targets import Targets, targets_of


@pytest.fixture
def space(tiny_prior, truth):
    """Exactly the true latents, which do not move."""
    size = tiny_prior.config.w_dim
    plain = LatentStatistics(torch.zeros(size), torch.eye(size))
    return WSpace(plain, tiny_prior.config.num_ws, truth.ws[:2, :1], rate=0.0, weight=0.0)


def targets(photos, cameras):
    return Targets(photos.images[:2], torch.ones(2, 1, 64, 64), cameras, photos.names[:2])


def test_wrong_cameras_are_corrected(tiny_prior, photos, truth, space):
    off = move_cameras(truth.cameras[:2], torch.tensor([[0.0, 0.7, 0, 0, 0.5, 0], [0.5, 0, 0.3, 0, 0, 0]]))
    found = fit(Looks(tiny_prior.generator), space, targets(photos, off), [0, 1], [Stage(40, 16, 8)])
    torch.testing.assert_close(found.ws, truth.ws[:2])
    before, after = ((cameras - truth.cameras[:2]).norm(dim=1) for cameras in (off, found.cameras))
    assert (after < 0.5 * before).all()


def test_cameras_can_stay_and_every_step_is_told(tiny_prior, photos, truth, space):
    told = []
    stages = [Stage(2, 8, 8), Stage(1, 16, 8)]
    where = targets(photos, truth.cameras[:2])
    looks = Looks(tiny_prior.generator)
    found = fit(looks, space, where, [0, 1], stages, move_cameras_too=False, on_step=told.append)
    assert torch.equal(found.cameras, truth.cameras[:2])
    assert told == [2, 2, 2]


def test_a_loss_that_is_no_number_names_the_photos(tiny_prior, photos, truth, space):
    nowhere = targets(photos, torch.full((2, 25), float("nan")))
    with pytest.raises(UserError, match=r"a\.png, b\.png diverged at step 0"):
        fit(Looks(tiny_prior.generator), space, nowhere, [0, 1], [Stage(1, 8, 8)])


def half_known(photos):
    known = torch.ones(len(photos), 1, 64, 64)
    known[..., 20:44, 30:] = 0
    return known


@pytest.mark.parametrize("size", [64, 24, 16])
def test_pixels_that_are_not_known_have_no_influence(tiny_prior, photos, size):
    known = half_known(photos)
    other = replace(photos, images=torch.where(known > 0, photos.images, torch.rand(6, 3, 64, 64)))
    (seen, weights), (same, _) = (
        targets_of(album, tiny_prior.config, known=known).at(size) for album in (photos, other)
    )
    assert torch.equal(seen, same)
    torch.testing.assert_close(weights.mean(dim=(1, 2, 3)), torch.ones(6))
    touched = shrink(known, size) < 0.999
    assert (weights[touched] == 0).all() and (weights[~touched] > 0).all()


def test_a_rendering_s_pixels_in_a_hole_cost_nothing_however_wide_the_measure_looks(tiny_prior, photos):
    targets, index = targets_of(photos, tiny_prior.config, known=half_known(photos)), torch.arange(6)
    stage, perceptual = Stage(1, 64, 8, 0.1), load_perceptual("squeeze-feat")
    right, hole = photos.images, targets.at(64)[1] == 0
    torch.testing.assert_close(distance(right, targets, index, stage, perceptual), torch.zeros(6))
    wrong = torch.where(hole, -right, right)
    torch.testing.assert_close(distance(wrong, targets, index, stage, perceptual), torch.zeros(6))
    assert (distance(-right, targets, index, stage, perceptual) > 0.1).all()


def test_renderings_are_reduced_to_the_detail_of_the_photos(tiny_prior, photos):
    blurred = replace(photos, images=shrink(shrink(photos.images, 16), 64))
    stage, index = Stage(1, 64, 8), torch.arange(6)
    plain, reduced = (targets_of(blurred, tiny_prior.config, detail=d) for d in (None, 16))
    assert reduced.at(64)[0].shape == (6, 3, 16, 16) and reduced.at(8)[0].shape == (6, 3, 8, 8)
    sharp = distance(photos.images, reduced, index, stage)
    assert (sharp < 0.5 * distance(photos.images, plain, index, stage)).all()
    assert torch.equal(plain.like(photos.images), photos.images)
    torch.testing.assert_close(reduced.like(photos.images), blurred.images)
    assert reduced.only(1).detail == 16


def test_a_photo_of_which_nothing_is_known_is_refused(tiny_prior, photos):
    known = torch.ones(6, 1, 64, 64)
    known[2] = 0
    with pytest.raises(UserError, match=r"c\.png is known; mask less"):
        targets_of(photos, tiny_prior.config, known=known)
