"""Cameras against EG3D's numbers (EG3D spec 3) and against each other."""

import json
import math
from pathlib import Path

import pytest
import torch

from my3dgen import cameras
from my3dgen.errors import FileFormatError
from my3dgen.prior.rays import camera_rays

GOLDEN = json.loads((Path(__file__).parent / "golden" / "eg3d-golden.json").read_text())["micro"]


@pytest.mark.parametrize("case", GOLDEN["lookat"], ids=lambda case: f"{case['h']},{case['v']}")
def test_eg3d_look_at(case: dict) -> None:
    label = cameras.eg3d_look_at(math.pi / 2 + case["h"], math.pi / 2 + case["v"])
    torch.testing.assert_close(label[0, :16], torch.tensor(case["cam2world"]), atol=1e-6, rtol=0)


def test_fov_to_intrinsics() -> None:
    expected = torch.tensor(GOLDEN["fov_to_intrinsics_18.837"])
    torch.testing.assert_close(cameras.fov_to_intrinsics(18.837), expected, atol=1e-5, rtol=0)


def test_frontal_camera_is_the_spec_label() -> None:
    expected = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    torch.testing.assert_close(cameras.frontal_camera(), torch.tensor([expected]), atol=1e-7, rtol=0)


def test_angles_are_true_angles_and_invert() -> None:
    yaw = torch.tensor([-1.2, 0.0, 0.4, 2.5])
    pitch = torch.tensor([0.3, -0.5, 0.0, 1.1])
    label = cameras.camera_from_angles(yaw, pitch, radius=2.0)
    back = cameras.angles_from_camera(label)
    torch.testing.assert_close(back[0], yaw)
    torch.testing.assert_close(back[1], pitch)
    torch.testing.assert_close(label[:, [3, 7, 11]].norm(dim=1), torch.full((4,), 2.0))


def test_yaw_moves_right_and_pitch_moves_up() -> None:
    label = cameras.camera_from_angles(0.3, 0.2)[0]
    assert label[3] > 0 and label[7] > 0


def test_the_pivot_projects_to_the_centre() -> None:
    label = cameras.camera_from_angles(torch.linspace(-1, 1, 5), 0.3)
    pivot = torch.tensor(cameras.PIVOT).expand(5, 1, 3)
    torch.testing.assert_close(cameras.project(pivot, label), torch.full((5, 1, 2), 0.5))


def test_project_inverts_rays() -> None:
    label = cameras.camera_from_angles(0.4, -0.2)
    label[:, 16:] = torch.tensor([1.2, 0.1, 0.45, 0.0, 1.4, 0.55, 0.0, 0.0, 1.0])
    origins, directions = camera_rays(label, 3)
    centres = (torch.arange(3) + 0.5) / 3
    expected = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).reshape(1, 9, 2)
    torch.testing.assert_close(cameras.project(origins + 2 * directions, label), expected)


def test_mirror_reflects_the_picture() -> None:
    label = cameras.camera_from_angles(torch.tensor([0.5, -0.2]), 0.1)
    points = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    across = points * torch.tensor([-1.0, 1.0, 1.0])
    seen = cameras.project(points, label)
    mirrored = cameras.project(across, cameras.mirror_camera(label))
    torch.testing.assert_close(mirrored[..., 0], 1 - seen[..., 0])
    torch.testing.assert_close(mirrored[..., 1], seen[..., 1])
    twice = cameras.mirror_camera(cameras.mirror_camera(label))
    assert torch.equal(twice, label)


def test_mirror_of_an_angle_is_the_opposite_yaw() -> None:
    mirrored = cameras.mirror_camera(cameras.camera_from_angles(0.5, 0.1))
    torch.testing.assert_close(mirrored, cameras.camera_from_angles(-0.5, 0.1))


def test_orbits_close_and_stay_on_the_sphere() -> None:
    loop = cameras.orbit(8, yaw=0.4, pitch=0.2)
    yaw, pitch = cameras.angles_from_camera(loop)
    torch.testing.assert_close(yaw[2], torch.tensor(0.4))
    torch.testing.assert_close(pitch[0], torch.tensor(0.2))
    for label in (loop, cameras.eg3d_orbit(4)):
        torch.testing.assert_close(label[:, [3, 7, 11]].norm(dim=1), torch.full((len(label),), 2.7))


def test_labels_survive_splitting_and_json() -> None:
    label = cameras.camera_from_angles(0.3, 0.1)
    assert torch.equal(cameras.join_label(*cameras.split_label(label)), label)
    assert torch.equal(torch.tensor(json.loads(json.dumps(label.tolist()))), label)


def test_good_labels_pass() -> None:
    for label in cameras.camera_from_angles(torch.linspace(-1, 1, 3), 0.2).tolist():
        cameras.check_label(label, "a.png")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({0: 2.0}, "orthonormal"),
        ({0: -1.0}, "mirrors"),
        ({11: 0.0}, "origin"),
        ({15: 0.0}, "last row"),
        ({16: -1.0}, "focal"),
        ({24: 0.0}, "last row"),
        ({3: float("nan")}, "finite"),
        ({3: "x"}, "finite"),
        ({3: 10**400}, "beyond 1000"),
        ({11: 1e30}, "beyond 1000"),
        ({18: -1e30}, "beyond 1000"),
    ],
)
def test_bad_labels_are_named(entries: dict, message: str) -> None:
    label = cameras.frontal_camera()[0].tolist()
    for index, value in entries.items():
        label[index] = value
    with pytest.raises(FileFormatError, match=rf"a\.png.*{message}"):
        cameras.check_label(label, "a.png")


def test_a_label_of_another_length_is_refused() -> None:
    with pytest.raises(FileFormatError, match="25 numbers"):
        cameras.check_label([1.0] * 16, "a.png")
