import pytest
import torch

from my3dgen.camera_refine import move_cameras
from my3dgen.errors import UserError
from my3dgen.fit import Stage, fit
from my3dgen.latents import LatentStatistics, WSpace
from my3dgen.targets import Targets


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
    found = fit(tiny_prior.generator, space, targets(photos, off), [0, 1], [Stage(40, 16, 8)])
    torch.testing.assert_close(found.ws, truth.ws[:2])
    before, after = ((cameras - truth.cameras[:2]).norm(dim=1) for cameras in (off, found.cameras))
    assert (after < 0.5 * before).all()


def test_cameras_can_stay_and_every_step_is_told(tiny_prior, photos, truth, space):
    told = []
    stages = [Stage(2, 8, 8), Stage(1, 16, 8)]
    where = targets(photos, truth.cameras[:2])
    found = fit(
        tiny_prior.generator, space, where, [0, 1], stages, move_cameras_too=False, on_step=told.append
    )
    assert torch.equal(found.cameras, truth.cameras[:2])
    assert told == [2, 2, 2]


def test_a_loss_that_is_no_number_names_the_photos(tiny_prior, photos, truth, space):
    nowhere = targets(photos, torch.full((2, 25), float("nan")))
    with pytest.raises(UserError, match=r"a\.png, b\.png diverged at step 0"):
        fit(tiny_prior.generator, space, nowhere, [0, 1], [Stage(1, 8, 8)])
