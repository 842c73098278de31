import math

import pytest
import torch

from my3dgen.cameras import FOCAL, camera_from_angles, project
from my3dgen.evaluate.method_people import crop_camera
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
