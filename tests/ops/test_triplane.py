"""Plane lookups against EG3D's numbers (EG3D spec 1.7)."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from my3dgen.config import PlaneMode
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


def lookups(planes: Tensor, points: Tensor, axes: PlaneMode) -> Tensor:
    """The features, one plane after the other."""
    pairs = zip(planes.unbind(1), PLANE_AXES[axes], strict=True)
    each = [sample_plane(plane, points[..., list(pair)]) for plane, pair in pairs]
    return torch.stack(each).mean(0)


@pytest.mark.parametrize("axes", PLANE_AXES)
def test_derivatives_are_those_of_one_lookup_a_plane(axes) -> None:
    rng = torch.Generator().manual_seed(0)
    planes = torch.randn(2, 3, 4, 16, 16, generator=rng, dtype=torch.float64).requires_grad_()
    points = torch.rand(2, 200, 3, generator=rng, dtype=torch.float64) * 2.6 - 1.3
    points.requires_grad_()
    features, expected = sample_planes(planes, points, axes, torch.float64), lookups(planes, points, axes)
    torch.testing.assert_close(features, expected)
    weights = torch.randn(features.shape, generator=rng, dtype=torch.float64)
    found = torch.autograd.grad(features, (planes, points), weights)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (planes, points), weights))


def test_planes_stacked_channels_last_give_the_same() -> None:
    rng = torch.Generator().manual_seed(0)
    planes, points = torch.randn(1, 12, 8, 8, generator=rng), torch.rand(1, 20, 3, generator=rng) - 0.5
    ordered = planes.contiguous(memory_format=torch.channels_last).unflatten(1, (3, -1))
    features = sample_planes(planes.unflatten(1, (3, -1)), points, "xy_xz_zy")
    torch.testing.assert_close(sample_planes(ordered, points, "xy_xz_zy"), features, atol=0, rtol=0)


def test_what_is_no_number_stays_none() -> None:
    planes, points = torch.ones(1, 3, 4, 8, 8), torch.tensor([[[0.1, 0.2, 0.3], [torch.nan, 0.0, 0.0]]])
    features = sample_planes(planes, points, "xy_xz_zy")
    assert features[0, 0].isfinite().all() and features[0, 1].isnan().all()


def test_planes_that_are_not_square() -> None:
    rng = torch.Generator().manual_seed(0)
    planes, points = torch.randn(1, 3, 4, 8, 16, generator=rng), torch.rand(1, 20, 3, generator=rng) - 0.5
    torch.testing.assert_close(sample_planes(planes, points, "xy_xz_zy"), lookups(planes, points, "xy_xz_zy"))


def test_no_points() -> None:
    planes = torch.randn(1, 3, 4, 8, 8)
    assert sample_planes(planes, torch.zeros(1, 0, 3), "xy_xz_zy").shape == (1, 0, 4)


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
