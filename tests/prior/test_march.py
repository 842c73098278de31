"""The marcher against EG3D's numbers and at its limits (EG3D spec 1.11)."""

import json
from pathlib import Path

import pytest
import torch

from my3dgen.prior.march import march

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "eg3d-golden.json").read_text())["micro"][
    "marcher"
]


def _march(densities: list[float], *, white_back: bool = False) -> tuple[torch.Tensor, ...]:
    depths = torch.tensor([[GOLDEN["depths"]]])
    colours = torch.tensor([[GOLDEN["colors"]]])
    return march(colours, torch.tensor([[densities]]), depths, white_back=white_back)


def test_weights_colour_and_depth() -> None:
    colour, depth, weights = _march(GOLDEN["densities"])
    torch.testing.assert_close(weights[0, 0], torch.tensor(GOLDEN["weights"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(colour[0, 0], torch.tensor(GOLDEN["rgb"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(depth[0], torch.tensor(GOLDEN["depth"]), atol=1e-6, rtol=0)


def test_white_background() -> None:
    colour, *_ = _march(GOLDEN["densities"], white_back=True)
    torch.testing.assert_close(colour[0, 0], torch.tensor(GOLDEN["rgb_white_back"]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("white_back", "background"), [(False, -1.0), (True, 1.0)])
def test_empty_space(white_back: bool, background: float) -> None:
    colour, depth, weights = _march([-1e4] * 4, white_back=white_back)
    assert torch.equal(colour, torch.full_like(colour, background))
    assert depth.item() == max(GOLDEN["depths"])
    assert weights.sum() == 0


def test_raw_density_zero_is_not_empty() -> None:
    *_, weights = _march([0.0] * 4)
    first = 1 - torch.exp(-torch.nn.functional.softplus(torch.tensor(-1.0)) * 0.5)
    torch.testing.assert_close(weights[0, 0, 0], first)


def test_an_opaque_interval_shows_its_middle() -> None:
    colour, depth, _ = _march([-1e4, 1e5, 1e5, 1e5])
    torch.testing.assert_close(colour[0, 0], 2 * torch.tensor([0.3, 0.7]) - 1)
    torch.testing.assert_close(depth[0, 0], torch.tensor(2.25))


def test_depth_of_empty_rays_has_a_finite_gradient() -> None:
    densities = torch.tensor([[[-200.0] * 4, [1.0] * 4]], requires_grad=True)
    depths = torch.tensor(GOLDEN["depths"]).expand(1, 2, 4)
    colour, depth, _ = march(torch.zeros(1, 2, 4, 1), densities, depths, white_back=True)
    (gradient,) = torch.autograd.grad(colour.sum() + depth.sum(), densities)
    assert gradient.isfinite().all()
    assert (gradient[0, 1] != 0).all()
