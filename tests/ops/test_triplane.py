"""Plane lookups against EG3D's numbers (EG3D spec 1.7)."""

import json
from pathlib import Path

import pytest
import torch

from my3dgen.ops.triplane import PLANE_AXES, sample_plane, sample_planes

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "eg3d-golden.json").read_text())["micro"]


def test_projection_of_a_point() -> None:
    point = (1.0, 2.0, 3.0)
    assert [point[axis] for pair in PLANE_AXES["xy_xz_zx"] for axis in pair] == GOLDEN["project_123"]


def test_lookups() -> None:
    planes = torch.arange(48.0).reshape(1, 3, 1, 4, 4)
    points = torch.tensor([GOLDEN["sample_planes"]["xyz"]]) * 2  # a box of side 1
    expected = torch.tensor(GOLDEN["sample_planes"]["per_plane"])
    each = [
        sample_plane(planes[:, i], points[..., list(pair)])[0, :, 0]
        for i, pair in enumerate(PLANE_AXES["xy_xz_zx"])
    ]
    torch.testing.assert_close(torch.stack(each), expected, atol=1e-5, rtol=1e-5)
    mean = sample_planes(planes, points, "xy_xz_zx")[0, :, 0]
    torch.testing.assert_close(mean, expected.mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axes", PLANE_AXES)
def test_two_lookups_are_enough_only_for_the_repeated_plane(axes) -> None:
    rng = torch.Generator().manual_seed(0)
    planes = torch.randn(2, 3, 4, 16, 16, generator=rng)
    points = torch.rand(2, 50, 3, generator=rng) * 2.2 - 1.1
    first, second, third = planes.unbind(1)
    two = sample_plane(first, points[..., :2]) + sample_plane(second + third.mT, points[..., [0, 2]])
    same = torch.allclose(sample_planes(planes, points, axes), two / 3, atol=1e-5)
    assert same == (axes == "xy_xz_zx")
    each = [sample_plane(planes[:, i], points[..., list(pair)]) for i, pair in enumerate(PLANE_AXES[axes])]
    torch.testing.assert_close(sample_planes(planes, points, axes), sum(each) / 3, atol=1e-5, rtol=1e-5)
