import math

import pytest
import torch

from my3dgen.cameras import FOCAL, camera_from_angles, project
from my3dgen.evaluate.true_views import aimed, crop_camera, seen_from
from my3dgen.faces.align import Square, into_square

POINTS = torch.tensor([[0.0, 0.0, 0.2], [0.15, 0.1, 0.1], [-0.2, 0.05, 0.3], [0.1, -0.25, 0.0]])


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.0])
def test_the_camera_of_a_crop_sees_what_the_crop_shows(angle):
    width, camera = 384, camera_from_angles(0.4, -0.1, focal=FOCAL / 1.5)
    square = Square(x=180.0, y=205.0, side=250.0, angle=angle)
    in_photo = project(POINTS[None], camera)[0] * width
    cropped = crop_camera(camera[0], square, width)
    torch.testing.assert_close(
        project(POINTS[None], cropped[None])[0], into_square(in_photo, square), atol=1e-5, rtol=0
    )
    assert cropped[[3, 7, 11]].tolist() == pytest.approx(camera[0, [3, 7, 11]].tolist())
    assert float(cropped[16]) == pytest.approx(FOCAL / 1.5 * 384 / 250)


def test_a_crop_of_everything_is_the_photo():
    camera = camera_from_angles(math.radians(30), 0.0)[0]
    torch.testing.assert_close(crop_camera(camera, Square(64.0, 64.0, 128.0), 128), camera)


def test_an_aimed_camera_looks_through_the_middle_of_the_same_picture():
    camera = camera_from_angles(0.4, -0.1)
    camera[:, 18], camera[:, 21] = 0.56, 0.45
    centred = aimed(camera)
    assert centred[0, [18, 21]].tolist() == [0.5, 0.5]
    torch.testing.assert_close(centred[:, [3, 7, 11]], camera[:, [3, 7, 11]])
    torch.testing.assert_close(
        project(POINTS[None], centred), project(POINTS[None], camera), atol=1e-3, rtol=0
    )


def test_views_keep_their_turns_and_zooms_against_the_source():
    exact = camera_from_angles(torch.tensor([-0.5, 0.0, 0.5]), 0.0)
    exact[2, [16, 20]] *= 1.1
    found = camera_from_angles(0.2, 0.1)[0]
    seen = seen_from(found, exact, 1)
    torch.testing.assert_close(seen[1], found, atol=1e-5, rtol=0)
    assert float(seen[2, 16] / found[16]) == pytest.approx(1.1)
    # a world turned as the source's camera is, seen by its own cameras
    turn = found[:16].reshape(4, 4) @ torch.linalg.inv(exact[1, :16].reshape(4, 4))
    turned = POINTS @ turn[:3, :3].T + turn[:3, 3]
    views = project(POINTS.expand(3, -1, -1), exact)
    torch.testing.assert_close(project(turned.expand(3, -1, -1), seen), views, atol=1e-5, rtol=0)
