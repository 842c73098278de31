"""The encoder's pictures: framed as their camera says, changed only where a person is."""

import torch

from my3dgen.cameras import camera_from_angles, frame, project
from my3dgen.pretrain.augment import Imaging, photographed
from my3dgen.prior.encoder import EncoderConfig, camera_of_pose, pose_of_camera

STILL = Imaging(share=0.0)
ONLY_FRAMED = Imaging(share=1.0, roll=0.2, zoom=0.15, shift=0.08, blur=0.0, noise=0.0, light=0.0, edge=0.0)


def _spot(place: torch.Tensor, size: int = 96) -> torch.Tensor:
    """A soft black spot on white with its centre at each place (0 to 1)."""
    at = (torch.arange(size) + 0.5) / size
    far = (at - place[:, :1, None]).square() + (at[:, None] - place[:, 1:, None]).square()
    return torch.exp(-far / (2 * 0.04**2))[:, None]


def test_framed_cameras_see_points_where_framed_pictures_show_them() -> None:
    rng = torch.Generator().manual_seed(0)
    point = torch.tensor([[[0.07, 0.06, 0.15]]]).expand(6, 1, 3)
    cameras = camera_from_angles(torch.linspace(-0.6, 0.6, 6), torch.linspace(-0.2, 0.2, 6))
    cover = _spot(project(point, cameras)[:, 0])
    picture = (1 - 2 * cover).expand(-1, 3, -1, -1)
    moved, framing = photographed(picture, cover, ONLY_FRAMED, rng)
    dark = (1 - moved[:, 0]) / 2
    at = (torch.arange(96) + 0.5) / 96
    total = dark.sum((1, 2))
    seen = torch.stack([(dark.sum(1) * at).sum(1) / total, (dark.sum(2) * at).sum(1) / total], 1)
    expected = project(point, frame(cameras, framing))[:, 0]
    assert (
        framing.abs().amax(0).gt(0.03).all() and (expected - project(point, cameras)[:, 0]).abs().max() > 0.03
    )
    torch.testing.assert_close(seen, expected, atol=0.004, rtol=0)


def test_poses_and_cameras_are_one_thing() -> None:
    framing = torch.tensor([[0.05, -0.1, 0.02, 0.03], [0.0, 0.2, -0.01, 0.0]])
    cameras = camera_from_angles(torch.tensor([0.4, -0.7]), torch.tensor([0.1, -0.2]))
    again = camera_of_pose(pose_of_camera(cameras, framing), EncoderConfig())
    torch.testing.assert_close(again, frame(cameras, framing), atol=1e-5, rtol=0)


def test_the_background_stays_white_and_some_pictures_stay_as_they_are() -> None:
    rng = torch.Generator().manual_seed(1)
    cover = _spot(torch.full((40, 2), 0.5), 64)
    cover = cover * (cover > 0.02)
    picture = 1 - 1.2 * cover.expand(-1, 3, -1, -1)
    torch.testing.assert_close(photographed(picture, cover, STILL, rng)[0], picture, atol=1e-5, rtol=0)
    changed, framing = photographed(picture, cover, Imaging(), rng)
    assert (changed[:, :, :8] == 1).all()
    still = framing.abs().sum(1) == 0
    assert 2 <= still.sum() <= 20
    torch.testing.assert_close(changed[still], picture[still], atol=1e-5, rtol=0)
    assert (changed[~still] - picture[~still]).abs().amax((1, 2, 3)).min() > 0.01
