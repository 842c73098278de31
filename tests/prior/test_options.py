"""Options of a prior's configuration, each against the formula in the specification written out anew."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, softplus

from my3dgen.config import PRESETS, PriorConfig
from my3dgen.ops.skip import add_skip
from my3dgen.prior import synthesis
from my3dgen.prior.decoder import Decoder
from my3dgen.prior.generator import Generator
from my3dgen.prior.mapping import MappingNetwork
from my3dgen.prior.render import Sampling, render_rays

TINY = PRESETS["tiny"]


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _fill(module: torch.nn.Module) -> None:
    for seed, parameter in enumerate(module.parameters()):
        parameter.data.copy_(_drawn(*parameter.shape, seed=seed))


@pytest.mark.parametrize("clamp", [2.0, None])
def test_conv_clamp(clamp: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """EG3D spec 1.2: the clamp bounds every layer of the backbone, biases of 1000 and -6000 or not."""
    generator = Generator(replace(TINY, conv_clamp=clamp)).requires_grad_(False)
    for name, parameter in generator.backbone.synthesis.named_parameters():
        if name.endswith(("conv0.bias", "conv1.bias", "torgb.bias")):
            parameter[::2], parameter[1::2] = 1000.0, -6000.0
    limits: dict[str, tuple[float, float]] = {}

    def added(image: Tensor | None, contribution: Tensor, bias: Tensor, bound: float | None, *, up: bool):
        alone = add_skip(None, contribution, bias, bound, up=False)
        limits[f"torgb{alone.shape[-1]}"] = alone.min().item(), alone.max().item()
        return add_skip(image, contribution, bias, bound, up=up)

    monkeypatch.setattr(synthesis, "add_skip", added)
    for name, module in generator.backbone.synthesis.named_modules():
        if name.endswith(("conv0", "conv1")):
            module.register_forward_hook(
                lambda *a, name=name: limits.update({name: (a[2].min().item(), a[2].max().item())})
            )
    generator.planes(_drawn(1, TINY.num_ws, TINY.w_dim))
    assert len(limits) == 3 * len(TINY.block_resolutions) - 1
    for name, (low, high) in limits.items():
        assert (low, high) == (-clamp, clamp) if clamp else low < -500 and high > 500, name


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_c_scale(scale: float) -> None:
    """EG3D spec 1.6: c is multiplied before it is embedded and normalised."""
    mapping = MappingNetwork(replace(TINY, c_gen_conditioning_zero=False, c_scale=scale))
    _fill(mapping)
    seen: list[Tensor] = []
    mapping.get_submodule("fc0").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    z, c = _drawn(2, TINY.z_dim), _drawn(2, 25, seed=1)
    mapping(z, c)
    embedded = (scale * c) @ (mapping.embed.weight / 5).T + mapping.embed.bias
    expected = torch.cat([x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt() for x in (z, embedded)], 1)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("multiplier", [1.0, 0.25])
def test_decoder_lr_mul(multiplier: float) -> None:
    """EG3D spec 1.8: weight * m / sqrt(inputs) and bias * m in both layers, softplus between."""
    decoder = Decoder(replace(TINY, decoder_lr_mul=multiplier)).requires_grad_(False)
    _fill(decoder)
    features = _drawn(1, 6, TINY.plane_features, seed=9)
    w0, b0, w1, b1 = (p * multiplier for p in decoder.parameters())
    hidden = softplus(features @ (w0 / math.sqrt(TINY.plane_features)).T + b0)
    out = hidden @ (w1 / math.sqrt(TINY.decoder_hidden)).T + b1
    colours, densities = decoder(features)
    torch.testing.assert_close(densities, out[..., 0])
    torch.testing.assert_close(colours, torch.sigmoid(out[..., 1:]) * 1.002 - 0.001)


@pytest.mark.parametrize("side", [1.0, 2.5])
def test_box_warp_scales_points(side: float) -> None:
    """EG3D spec 1.7: the planes span the cube of this side, q = p * 2 / side."""
    generator = Generator(replace(TINY, box_warp=side)).requires_grad_(False)
    planes = _drawn(1, 3, TINY.plane_features, 8, 8)
    points = (torch.rand(1, 20, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * side
    q = points * 2 / side
    each = [
        grid_sample(planes[:, i], q[:, None, :, list(axes)], align_corners=False)[:, :, 0].mT
        for i, axes in enumerate([(0, 1), (0, 2), (2, 1)])
    ]
    colours, densities = generator.decoder(torch.stack(each).mean(0))
    found = generator.query(planes, points)
    torch.testing.assert_close(found[0], colours)
    torch.testing.assert_close(found[1][..., 0], densities)


def _distances(config: PriorConfig, origins: Tensor, directions: Tensor) -> Tensor:
    """Where the coarse pass looks along rays, `rays 5`."""
    seen: list[Tensor] = []

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(points)
        return torch.zeros(1, points.shape[1], 3), torch.zeros(1, points.shape[1])

    render_rays(field, origins, directions, config, Sampling(5, 0), None)
    offsets = seen[0].unflatten(1, (-1, 5)) - origins[:, :, None]
    return (offsets * directions[:, :, None]).sum(-1)[0]


ORIGINS = torch.tensor([[[0.0, 0.0, 3.0], [2.0, 0.0, 2.0]]])
DIRECTIONS = torch.tensor([[[0.0, 0.0, -1.0], [-(0.5**0.5), 0.0, -(0.5**0.5)]]])
FRACTION = (torch.arange(5) + 0.5) / 4  # jitter 0.5


@pytest.mark.parametrize("disparity", [False, True])
def test_disparity_space_sampling(disparity: bool) -> None:
    """EG3D spec 1.10: even in distance, or in 1 / distance."""
    config = replace(TINY, ray_start=1.0, ray_end=4.0, disparity_space_sampling=disparity)
    found = _distances(config, ORIGINS, DIRECTIONS)
    expected = 1 / ((1 - FRACTION) / 1 + FRACTION / 4) if disparity else 1 + 3 * FRACTION
    torch.testing.assert_close(found, expected.expand(2, 5))


@pytest.mark.parametrize("side", [1.0, 2.0])
def test_auto_ray_limits_are_those_of_the_box(side: float) -> None:
    """EG3D spec 1.10: entry into and exit from the cube of side box_warp, for every ray its own."""
    config = replace(TINY, ray_start="auto", ray_end="auto", box_warp=side)
    found = _distances(config, ORIGINS, DIRECTIONS)
    near = torch.tensor([3 - side / 2, (2 - side / 2) * 2**0.5])  # the second ray goes corner to corner
    far = torch.tensor([3 + side / 2, (2 + side / 2) * 2**0.5])
    torch.testing.assert_close(found, near[:, None] + FRACTION * (far - near)[:, None])
