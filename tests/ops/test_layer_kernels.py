"""The kernels around a modulated convolution against the readable layer, in Triton's interpreter.

No GPU is needed. The interpreter has to be chosen before Triton is imported, so one test runs all others in
a process of its own. Both sides work in float32; sums run in another order, hence the bounds.
"""

import importlib

import pytest
import torch
from interpreter import interpreted, interprets, pass_in_the_interpreter
from torch import Tensor

from my3dgen.ops.fir import lowpass_filter, upfirdn
from my3dgen.ops.low_rank import LowRank

modulated_conv = importlib.import_module("my3dgen.ops.modulated_conv")


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def _layer(lead: tuple[int, ...], up: bool, noises: int | None) -> dict:
    """Arguments of a layer for three images, whose bias and change are shared or each image's own."""
    side = 18 if up else 9
    return {
        "x": _drawn(3, 4, 9, 9),
        "weight": _drawn(6, 4, 3, 3, seed=1),
        "styles": _drawn(3, 4, seed=2),
        "bias": _drawn(*lead, 6, seed=3),
        "noise": None if noises is None else _drawn(noises, 1, side, side, seed=4),
        "upsample": up,
        "change": LowRank(_drawn(*lead, 6, 36, seed=5), _drawn(*lead, 6, 6, seed=6), 0.7),
        "clamp": 1.5,
        "fresh": False,
    }


def _leaves(given: dict) -> list[Tensor]:
    change = given["change"]
    tensors = [*(given[name] for name in ("x", "weight", "styles", "bias", "noise")), change.A, change.B]
    return [tensor for tensor in tensors if tensor is not None]


def _packed(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """`image inner channel 3 3` as `image part channel i j inner`, four components a part."""
    images, inner, channels = weights.shape[:3]
    packed = weights.new_zeros(images, -(-inner // 4), channels, 4, 4, 4, dtype=dtype)
    for part, some in enumerate(weights.split(4, 1)):
        packed[:, part, :, :3, :3, : some.shape[1]] = some.permute(0, 2, 3, 4, 1)
    return packed


@interpreted
@pytest.mark.parametrize("noises", [None, 1, 3])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_a_fused_layer_is_the_readable_one(lead, up, noises, monkeypatch) -> None:
    """Values with and without derivatives, where the kernels are others, and all gradients."""
    from my3dgen.ops.fir_triton import low_pass_fused

    given = _layer(lead, up, noises)
    readable = modulated_conv.modulated_layer(**given)
    assert (readable.abs() == 1.5).any()  # the bound is met
    monkeypatch.setattr(modulated_conv, "low_pass", low_pass_fused)
    fused = modulated_conv._fused_layer(**given)
    torch.testing.assert_close(fused, readable, atol=2e-5, rtol=1e-5)
    with torch.no_grad():
        before = given["x"].clone()
        torch.testing.assert_close(modulated_conv._fused_layer(**given), readable, atol=2e-5, rtol=1e-5)
        assert torch.equal(given["x"], before)
        over = given | {"x": before.contiguous(memory_format=torch.channels_last), "fresh": True}
        torch.testing.assert_close(modulated_conv._fused_layer(**over), readable, atol=2e-5, rtol=1e-5)
    probe = _drawn(*fused.shape, seed=9).detach()
    for one, other in zip(
        torch.autograd.grad((fused * probe).sum(), _leaves(given)),
        torch.autograd.grad((readable * probe).sum(), _leaves(given)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@interpreted
@pytest.mark.parametrize("frozen", ["", "x", "weight", "scales"])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("up", [False, True])
def test_a_convolution_of_scaled_features(up, rows, frozen) -> None:
    """Scaled features are made anew backward; only what is given is kept."""
    from my3dgen.ops.scaled_conv_triton import scaled_conv

    given = {"x": _drawn(3, 5, 9, 7), "weight": _drawn(6, 5, 3, 3, seed=1), "scales": _drawn(rows, 5, seed=2)}
    given |= {name: given[name].detach() for name in given if name == frozen}
    x, weight, scales = given.values()
    one = scaled_conv(x, weight, scales, upsample=up)
    other = modulated_conv._conv(x * scales[:, :, None, None], weight, up)
    torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
    assert one.grad_fn is not None
    large = [tensor for tensor in one.grad_fn.saved_tensors if tensor.shape == x.shape]
    assert len(large) == 1 and torch.equal(large[0], x)
    probe, leaves = _drawn(*one.shape, seed=9).detach(), [x for x in given.values() if x.requires_grad]
    for a, b in zip(
        torch.autograd.grad((one * probe).sum(), leaves),
        torch.autograd.grad((other * probe).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@interpreted
@pytest.mark.parametrize("clamp", [None, 1.3])  # half precision has no 1.3
def test_gradients_come_from_rounded_results(clamp) -> None:
    """Features are not kept: what a norm's gradient needs of them is found in the result."""
    from my3dgen.ops.finish_triton import finish_fused

    shape = (2, 70, 12, 15)
    features = _drawn(*shape).detach().half().contiguous(memory_format=torch.channels_last).requires_grad_()
    norms = (_drawn(2, 70, seed=1).detach().abs() + 0.5).requires_grad_()  # as next to features they are
    bias, noise = _drawn(70, seed=2), _drawn(1, 1, 12, 15, seed=3)
    others = [norms, bias, noise]
    fused = finish_fused(features, norms, bias, noise, clamp)
    exact = features.detach().float().requires_grad_()
    y = exact * norms[:, :, None, None] + noise + bias[:, None, None]
    readable = torch.nn.functional.leaky_relu(y, 0.2) * 2**0.5
    readable = readable if clamp is None else readable.clamp(-clamp, clamp)
    assert clamp is None or (readable == clamp).any()
    kept = [tensor for tensor in fused.grad_fn.saved_tensors if tensor.shape == shape]
    assert len(kept) == 1 and kept[0].data_ptr() == fused.data_ptr()
    probe = _drawn(*shape, seed=9).detach()
    if clamp is not None:  # what rounds to the bound counts as beyond it
        probe[((readable.abs() - clamp).abs() < 1e-3) & (readable.abs() < clamp)] = 0
    found = torch.autograd.grad((fused * probe).sum(), [features, *others])
    wanted = torch.autograd.grad((readable * probe).sum(), [exact, *others])
    for one, other in zip(found, wanted, strict=True):
        scale = other.abs().max().item()
        torch.testing.assert_close(one.float(), other, atol=2e-3 * scale, rtol=2e-3)


@interpreted
@pytest.mark.parametrize("shape", [(2, 5, 9, 7), (1, 70, 4, 40), (1, 3, 2, 300)])
@pytest.mark.parametrize("padding", [(1, 1), (2, 2), (2, 1)])
def test_low_pass(shape, padding) -> None:
    """Sides and channels that fill no program."""
    from my3dgen.ops.fir_triton import low_pass_fused

    x, taps = _drawn(*shape), lowpass_filter()
    fused = low_pass_fused(x, padding, 4.0)
    readable = upfirdn(x, taps, padding=(*padding, *padding), gain=4.0)
    torch.testing.assert_close(fused, readable, atol=1e-5, rtol=1e-5)
    probe = _drawn(*fused.shape, seed=9).detach()
    one, other = (torch.autograd.grad((y * probe).sum(), x)[0] for y in (fused, readable))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@interpreted
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("images", "channels", "inner", "height", "width"),
    [
        (2, 5, 3, 9, 7),
        (2, 70, 17, 9, 7),
        (1, 8, 24, 5, 3),
        (2, 8, 1, 1, 5),  # one row
        (1, 8, 3, 5, 1),
        (1, 16, 3, 2, 61),  # a program owns 62 columns, and with a neighbour 31 or 32
        (1, 16, 3, 2, 62),
        (1, 16, 3, 2, 63),
        (3, 16, 3, 34, 130),  # strips of two rows
        (1, 300, 3, 3, 9),  # channels in turns
    ],
)
def test_a_few_channels_of_each_image(images, channels, inner, height, width, dtype, up) -> None:
    """Half precision has other programs; its sums are float32 as well."""
    from my3dgen.ops.low_rank_triton import conv_each_fused

    x = _drawn(images, channels, height, width).detach().to(dtype)
    weights = _drawn(images, inner, channels, 3, 3, seed=1).detach()
    made = conv_each_fused(x, _packed(weights, x.dtype), weights.shape[1], up)
    readable = modulated_conv._conv_each(x.float(), weights.to(dtype).float(), up)
    torch.testing.assert_close(made, readable, atol=1e-4, rtol=1e-5)


@interpreted
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("height", [15, 16, 37])
def test_long_strips(height, up, monkeypatch) -> None:
    """As in a large batch: 16 rows a program, the last one's fewer."""
    from my3dgen.ops import low_rank_triton

    monkeypatch.setattr(low_rank_triton, "PROGRAMS", 1)
    x, weights = _drawn(2, 6, height, 70).detach(), _drawn(2, 3, 6, 3, 3, seed=1).detach()
    made = low_rank_triton.conv_each_fused(x, _packed(weights, x.dtype), weights.shape[1], up)
    readable = modulated_conv._conv_each(x, weights, up)
    torch.testing.assert_close(made, readable, atol=1e-4, rtol=1e-5)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("styled", [1, 3])
@pytest.mark.parametrize(("channels", "outputs", "inner"), [(5, 7, 3), (33, 70, 1), (40, 130, 17)])
def test_small_tensors_of_each_image(channels, outputs, inner, styled, dtype) -> None:
    """Sides that fill no program; half precision rounds what the norms know of the change."""
    from my3dgen.ops.change_triton import prepared

    weight, styles = _drawn(outputs, channels, 3, 3), _drawn(styled, channels, seed=1)
    change = LowRank(_drawn(3, inner, channels * 9, seed=2), _drawn(3, outputs, inner, seed=3), 0.1)
    made = prepared(weight, styles, change, dtype)
    assert torch.equal(made.weight, weight.to(dtype))
    assert made.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made.down, _packed(change.A.unflatten(-1, (-1, 3, 3)), dtype))
    assert torch.equal(made.up, change.B.mT * 0.1)
    norms = modulated_conv._demodulation(weight, styles, change)
    torch.testing.assert_close(made.norms, norms, atol=0, rtol=2e-5 if dtype == torch.float32 else 2e-3)


@interpreted
@pytest.mark.parametrize(("inputs", "outputs", "inner"), [(5, 7, 1), (40, 130, 3), (16, 128, 9)])
def test_a_dense_layer_of_each_image(inputs, outputs, inner) -> None:
    """Rows that are not side by side, as of layers' styles; nine components are too many for the kernel."""
    dense = importlib.import_module("my3dgen.ops.dense")
    from my3dgen.ops.dense_triton import fits

    x, weight, bias = _drawn(3, 2, inputs)[:, 1], _drawn(outputs, inputs, seed=1), _drawn(3, outputs, seed=2)
    change = LowRank(_drawn(3, inner, inputs, seed=3), _drawn(3, outputs, inner, seed=4), 0.7)
    assert fits(x, bias, change) == (inner < 9)
    given = x, weight, bias, 0.3, 0.5, change
    with torch.no_grad():
        made = dense._fused(*given)
        torch.testing.assert_close(made, dense._readable(*given), atol=2e-5, rtol=1e-5)
        slow = 0.3 * x @ weight.T + 0.5 * bias + (x[:, None] @ change.product().mT)[:, 0]
    torch.testing.assert_close(made, slow, atol=2e-5, rtol=1e-5)


@interpreted
def test_a_zero_change_leaves_norms_alone() -> None:
    from my3dgen.ops.change_triton import prepared

    weight, styles = _drawn(6, 4, 3, 3), _drawn(3, 4, seed=1)
    nothing = LowRank(_drawn(3, 6, 36, seed=2), torch.zeros(3, 6, 6), 0.7)
    assert torch.equal(
        prepared(weight, styles, nothing, torch.float32).norms,
        prepared(weight, styles, LowRank(torch.zeros(3, 6, 36), nothing.B, 0.7), torch.float32).norms,
    )


@interprets
def test_in_the_interpreter() -> None:
    pass_in_the_interpreter(__file__)
