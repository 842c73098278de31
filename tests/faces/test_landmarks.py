"""Finding a face and its points, through turns, scales and gradients."""

import math

import pytest
import torch
from PIL import Image
from skimage import data

from my3dgen.cameras import camera_from_angles, project
from my3dgen.faces.blendshapes import blendshapes, score
from my3dgen.faces.build import pixels
from my3dgen.faces.canonical import canonical_face
from my3dgen.faces.detect import detect
from my3dgen.faces.landmarks import (
    EYES,
    expressions,
    landmarks,
    landmarks_of_face,
    region_of_camera,
    region_of_landmarks,
)


@pytest.fixture(scope="module")
def points(astronaut_tensor) -> torch.Tensor:
    return landmarks_of_face(astronaut_tensor, detect(astronaut_tensor)[0])[0]


def test_one_face_is_found_where_it_is(astronaut_tensor):
    (face,) = detect(astronaut_tensor)
    left, top, right, bottom = face.box.tolist()
    assert 170 < left < 190 and 70 < top < 90 and 260 < right < 285 and 165 < bottom < 185


def test_two_faces_are_two_and_a_cup_is_none(astronaut_tensor):
    pair = torch.cat([astronaut_tensor, astronaut_tensor.flip(2)], 2)
    assert len(detect(pair)) == 2
    assert detect(pixels(Image.fromarray(data.coffee()))) == []


def test_a_small_face_in_a_large_picture_is_found(astronaut_tensor, points):
    wide = torch.full((3, 2048, 2048), -0.3)
    wide[:, 1400:1912, 200:712] = astronaut_tensor
    face = detect(wide)[0]
    found, presence = landmarks_of_face(wide, face)
    assert presence > 0.9
    shift = found[:, :2] - torch.tensor([200.0, 1400.0]) - points[:, :2]
    assert shift.norm(dim=1).mean() < 1.0


@pytest.mark.parametrize("degrees", [-35, 20])
def test_points_turn_with_the_picture(astronaut, points, degrees):
    image = pixels(astronaut.rotate(-degrees, Image.Resampling.BICUBIC))  # clockwise
    found, _ = landmarks_of_face(image, detect(image)[0])
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = (points[:, :2] - 256) @ turn.T + 256
    eyes = (points[EYES[0], :2] - points[EYES[1], :2]).norm()
    assert ((found[:, :2] - expected).norm(dim=1).mean() / eyes) < 0.03
    smile = [float(score(blendshapes(p[None]), "smile")) for p in (points, found)]
    assert smile[0] == pytest.approx(smile[1], abs=0.08)


def test_points_are_differentiable_and_batched(astronaut_tensor, points):
    image = astronaut_tensor[None].clone().requires_grad_()
    regions = region_of_landmarks(points[None])
    found, _ = landmarks(image, regions)
    smile = score(blendshapes(found), "smile")
    (gradient,) = torch.autograd.grad(smile.sum(), image)
    face = gradient[:, :, 60:200, 160:290].abs().sum()
    assert face > 0.75 * gradient.abs().sum() > 0
    both, _ = landmarks(image.detach().expand(2, -1, -1, -1), regions.expand(2, -1))
    torch.testing.assert_close(both[1], found[0].detach(), rtol=0, atol=1e-2)


def test_a_camera_tells_where_the_face_is():
    cameras = camera_from_angles(torch.tensor([0.0, 0.4]), torch.tensor([0.0, -0.2]))
    regions = region_of_camera(cameras, 256)
    inside = project(canonical_face().expand(2, -1, -1), cameras) * 256
    assert ((inside - regions[:, None, :2]).abs() < regions[:, None, None, 2] / 2 / 1.4).all()
    assert regions[0, 3].abs() < 0.02
    assert expressions(torch.zeros(2, 3, 64, 64), cameras).shape == (2, 52)
