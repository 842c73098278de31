"""The crop rule and the camera: exact on made-up geometry, level on a tilted photo."""

import math

import numpy as np
import pytest
import torch

from my3dgen.cameras import angles_from_camera, camera_from_angles, check_label, project
from my3dgen.faces.align import STANDARD, Square, cut, face_square, into_square, outside
from my3dgen.faces.build import portrait
from my3dgen.faces.canonical import canonical_face
from my3dgen.faces.pose import solve_pose


def turn(angle: float) -> torch.Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_the_standard_face_fills_the_crop_as_specified(angle):
    # 300 pixels per unit in a crop of 700: the eyes are 0.62129 * 300 / 700 of the width apart
    level = torch.tensor(STANDARD)[:, :2] * torch.tensor([1.0, -1.0]) * 80
    points = level @ turn(angle).T + torch.tensor([400.0, 300.0])
    square = face_square(points, angle)
    assert (square.x, square.y) == pytest.approx((400, 300), abs=1e-3)
    assert square.side == pytest.approx(80 * 700 / 300, rel=1e-5)
    inside = into_square(points, square)
    assert float(inside[1, 0] - inside[0, 0]) == pytest.approx(0.62129 * 300 / 700, abs=1e-4)
    assert 0.5 - float(inside[:2, 1].mean()) == pytest.approx(0.29004 * 300 / 700, abs=1e-4)


def test_cut_takes_the_square_and_knows_what_lies_outside(astronaut):
    crop, inside = cut(astronaut, Square(100.0, 100.0, 128.0), 128)
    assert np.array_equal(np.asarray(crop), np.asarray(astronaut)[36:164, 36:164])
    assert np.asarray(inside).min() == 255
    square = Square(20.0, 100.0, 128.0)
    _, inside = cut(astronaut, square, 128)
    beyond = 1 - np.asarray(inside).mean() / 255
    assert beyond == pytest.approx(44 / 128, abs=0.01)
    assert outside(astronaut.size, square) == pytest.approx(beyond, abs=0.02)


def test_cut_turns_and_shrinks(astronaut):
    square = Square(224.0, 128.0, 200.0, math.radians(30))
    small, large = cut(astronaut, square, 64)[0], cut(astronaut, square, 256)[0]
    difference = np.asarray(large.reduce(4), float) - np.asarray(small, float)
    assert np.abs(difference).mean() < 4
    corner = into_square(torch.tensor([[224.0 + 100 * math.cos(square.angle), 128 + 50.0]]), square)
    assert corner[0, 0] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0.0, 0.0, 0.0), (0.6, -0.2, 0.3), (-0.4, 0.3, -0.7)])
def test_a_camera_is_found_again(yaw, pitch, roll):
    camera = camera_from_angles(yaw, pitch)
    points = project(canonical_face()[None], camera)[0]
    tilted = (points - 0.5) @ turn(roll).T + 0.5
    pose = solve_pose(tilted)
    assert pose.roll == pytest.approx(roll, abs=1e-3)
    assert pose.error < 1e-4
    assert pose.distance == pytest.approx(2.7, abs=2e-3)
    found = torch.cat(angles_from_camera(pose.camera[None]))
    torch.testing.assert_close(found, torch.tensor([yaw, pitch]), rtol=0, atol=1e-3)
    check_label(pose.camera.tolist(), "pose")
    if roll == 0:
        torch.testing.assert_close(pose.camera, camera[0], rtol=0, atol=3e-3)


def test_tilting_the_photo_changes_neither_crop_nor_camera(astronaut):
    upright = portrait(astronaut, 128)
    tilted = portrait(astronaut.rotate(-20, expand=True, resample=3), 128)
    difference = np.asarray(upright.image, float) - np.asarray(tilted.image, float)
    assert np.abs(difference).mean() < 6
    assert upright.measures.yaw == pytest.approx(tilted.measures.yaw, abs=1.5)
    assert upright.measures.pitch == pytest.approx(tilted.measures.pitch, abs=1.5)
    assert solve_pose_is_level(upright.camera) and solve_pose_is_level(tilted.camera)


def solve_pose_is_level(camera: torch.Tensor) -> bool:
    """The camera's x axis has no height."""
    return abs(float(camera[4])) < 5e-3


def test_the_mask_keeps_the_head_and_drops_the_wall(astronaut):
    found = portrait(astronaut, 128)
    mask = np.asarray(found.mask) / 255
    assert mask[40:100, 45:85].min() > 0.95
    assert mask[50:90, :3].max() < 0.1 and mask[70:100, -3:].max() < 0.1
