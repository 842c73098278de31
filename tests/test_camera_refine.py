import math

import torch

from my3dgen.camera_refine import SHIFT, TURN, ZOOM, crop_cameras, move_cameras, rotations
from my3dgen.cameras import angles_from_camera, camera_from_angles, project, split_label
from my3dgen.prior.rays import camera_rays


def test_no_move_changes_nothing():
    cameras = camera_from_angles(torch.tensor([-0.5, 0.0, 0.3]), 0.1)
    torch.testing.assert_close(move_cameras(cameras, torch.zeros(3, 6)), cameras)


def test_moves_turn_and_shift_by_their_units():
    camera = camera_from_angles(0.0, 0.0)
    moves = torch.zeros(1, 6)
    moves[0, 1] = 2.0
    yaw, pitch = angles_from_camera(move_cameras(camera, moves))
    torch.testing.assert_close(yaw, torch.tensor([2 * TURN]))
    torch.testing.assert_close(pitch, torch.zeros(1), atol=1e-6, rtol=0)
    moves = torch.zeros(1, 6)
    moves[0, 3] = 1.0  # the camera goes right, so the origin goes left in the picture
    before = project(torch.zeros(1, 1, 3), camera)
    after = project(torch.zeros(1, 1, 3), move_cameras(camera, moves))
    torch.testing.assert_close(after[0, 0, 0] - before[0, 0, 0], torch.tensor(-SHIFT * 4.2647 / 2.7))
    moves = torch.zeros(1, 6)
    moves[0, 5] = 3.0  # the picture grows about its middle, from the same place
    near = torch.tensor([[[0.1, -0.05, 0.2]]])
    zoomed = move_cameras(camera, moves)
    before, after = (project(near, one)[0, 0] - 0.5 for one in (camera, zoomed))
    torch.testing.assert_close(after, before * math.exp(3 * ZOOM))
    assert torch.equal(zoomed[:, :16], camera[:, :16]) and zoomed[0, 24] == 1


def test_rotations_are_the_exponential_and_so_are_their_gradients():
    rng = torch.Generator().manual_seed(1)
    lengths = torch.tensor([1e-6, 1e-3, 0.0099, 0.0101, 0.3, 3.0])[:, None]
    vectors = (torch.nn.functional.normalize(torch.randn(6, 3, generator=rng)) * lengths).requires_grad_()
    like = torch.randn(6, 3, 3, generator=rng)
    x, y, z = vectors.unbind(1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], 1).reshape(-1, 3, 3)
    pair = rotations(vectors), torch.linalg.matrix_exp(cross)
    torch.testing.assert_close(*pair, atol=1e-6, rtol=1e-6)
    mine, theirs = (torch.autograd.grad((made * like).sum(), vectors, retain_graph=True)[0] for made in pair)
    torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=2e-5)
    zero = torch.zeros(1, 3, requires_grad=True)
    assert torch.equal(rotations(zero)[0], torch.eye(3))
    (gradient,) = torch.autograd.grad((rotations(zero) * like[:1]).sum(), zero)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_moved_cameras_stay_rigid_and_carry_gradients():
    cameras = camera_from_angles(torch.tensor([0.2, -0.4]), 0.1)
    moves = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    moved = move_cameras(cameras, moves)
    rotation = split_label(moved)[0][:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(2, 3, 3), atol=1e-5, rtol=0)
    moved[:, 3].sum().backward()
    assert moves.grad is not None
    assert moves.grad.abs().sum() > 0


def test_a_crop_sees_exactly_the_window_s_rays():
    cameras = camera_from_angles(torch.tensor([0.3]), 0.1)
    origins, directions = camera_rays(cameras, 16)
    window = directions.reshape(1, 16, 16, 3)[:, 3:11, 6:14].reshape(1, 64, 3)
    crop_origins, crop_directions = camera_rays(crop_cameras(cameras, 3, 6, 8, 16), 8)
    torch.testing.assert_close(crop_directions, window, atol=1e-6, rtol=0)
    torch.testing.assert_close(crop_origins, origins[:, :64])
