"""Every fused kernel against its readable twin, forward and backward, where a CUDA device is.

Both sides work in float32; sums run in another order, hence the bounds.
"""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from my3dgen.ops.bias_act import bias_act
from my3dgen.ops.fir import lowpass_filter, upfirdn
from my3dgen.ops.low_pass import HAS_TRITON
from my3dgen.ops.triplane import PLANE_AXES, sample_plane

pytestmark = pytest.mark.skipif(not (torch.cuda.is_available() and HAS_TRITON), reason="no CUDA with Triton")
DEVICE = "cuda"


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng).to(DEVICE).requires_grad_()


def _agree(fused: Callable[..., Tensor], readable: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    """Equal values and equal gradients of all inputs."""
    one, other = fused(*inputs), readable(*inputs)
    torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
    probe = _drawn(*one.shape, seed=99).detach()
    for a, b in zip(
        torch.autograd.grad((one * probe).sum(), inputs),
        torch.autograd.grad((other * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize(("norms", "biases"), [((2, 5), (5,)), ((1, 5), (2, 5))])
def test_finish(clamp: float | None, norms: tuple[int, ...], biases: tuple[int, ...]) -> None:
    from my3dgen.ops.finish_triton import finish_fused

    def readable(features: Tensor, norm: Tensor, bias: Tensor) -> Tensor:
        return bias_act(features * norm[:, :, None, None], bias, activation="lrelu", clamp=clamp)

    _agree(
        lambda *inputs: finish_fused(*inputs, clamp),
        readable,
        [_drawn(2, 5, 9, 7), _drawn(*norms, seed=1), _drawn(*biases, seed=2)],
    )


@pytest.mark.parametrize("rows", [1, 2])
def test_scale(rows: int) -> None:
    from my3dgen.ops.finish_triton import scale_fused

    _agree(scale_fused, lambda x, s: x * s[:, :, None, None], [_drawn(2, 5, 9, 7), _drawn(rows, 5, seed=1)])


@pytest.mark.parametrize("padding", [(1, 1), (2, 2), (2, 1)])
def test_low_pass(padding: tuple[int, int]) -> None:
    from my3dgen.ops.fir_triton import low_pass_fused

    taps = lowpass_filter().to(DEVICE)
    _agree(
        lambda x: low_pass_fused(x, padding, 4.0),
        lambda x: upfirdn(x, taps, padding=(*padding, *padding), gain=4.0),
        [_drawn(2, 5, 9, 7)],
    )


def test_low_pass_has_second_derivatives() -> None:
    """The gradient penalty differentiates the discriminator's gradient."""
    from my3dgen.ops.fir_triton import low_pass_fused

    taps = lowpass_filter().to(DEVICE)
    found = []
    for filtered in (
        lambda x: low_pass_fused(x, (2, 2), 1.0),
        lambda x: upfirdn(x, taps, padding=(2, 2, 2, 2)),
    ):
        image = _drawn(1, 3, 6, 6)
        (first,) = torch.autograd.grad(filtered(image).square().sum(), image, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), image)[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("axes", PLANE_AXES)
def test_sample_planes(axes) -> None:
    from my3dgen.ops.triplane_triton import sample_planes_fused

    points = (_drawn(2, 70, 3, seed=1) * 0.6).detach()  # some beyond the planes
    assert points.abs().max() > 1 + 1 / math.sqrt(64)
    pairs = PLANE_AXES[axes]

    def readable(planes: Tensor) -> Tensor:
        each = [sample_plane(planes[:, i], points[..., list(pair)]) for i, pair in enumerate(pairs)]
        return torch.stack(each).mean(0)

    _agree(lambda planes: sample_planes_fused(planes, points, pairs), readable, [_drawn(2, 3, 8, 16, 16)])
