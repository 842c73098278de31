"""The skip connection: against the operations it consists of, and its kernels in Triton's interpreter.

The interpreter has to be chosen before Triton is imported, so one test runs the kernels' tests in a process
of its own. No GPU is needed.
"""

import pytest
import torch
from interpreter import interpreted, interprets, pass_in_the_interpreter
from torch import Tensor

from my3dgen.ops.bias_act import bias_act
from my3dgen.ops.fir import lowpass_filter, upfirdn, upsample2d
from my3dgen.ops.skip import add_skip

Size = tuple[int, ...]


def _drawn(shape: Size, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("bias_shape", [(5,), (2, 5)])
@pytest.mark.parametrize("image_shape", [None, (2, 5, 3, 4), (2, 5, 6, 8)])
def test_is_what_its_parts_give(
    image_shape: Size | None, bias_shape: Size, clamp: float | None, dtype: torch.dtype
) -> None:
    """To the last bit, with gradients and without."""
    contribution, bias = _drawn((2, 5, 6, 8), 1, dtype), _drawn(bias_shape, 2)
    image = None if image_shape is None else _drawn(image_shape, 3)
    up = image_shape is not None and image_shape[-1] == 4
    expected = bias_act(contribution, bias, activation="linear", clamp=clamp).float()
    if image is not None:
        expected = (upsample2d(image, lowpass_filter()) if up else image) + expected
    assert torch.equal(add_skip(image, contribution, bias, clamp, up=up), expected)
    with torch.no_grad():
        found = add_skip(image, contribution, bias, clamp, up=up)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_shared_inputs() -> None:
    image, contribution, bias = _drawn((1, 3, 2, 2), 1), _drawn((2, 3, 4, 4), 2), _drawn((3,), 3)
    found = add_skip(image, contribution, bias, None, up=True)
    for i in range(2):
        torch.testing.assert_close(
            found[i : i + 1], add_skip(image, contribution[i : i + 1], bias, None, up=True)
        )


def _compare(
    image_shape: Size | None,
    shape: Size,
    bias_shape: Size,
    clamp: float | None,
    *,
    up: bool,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Equal values, and equal gradients of all inputs; the twin works in float32 whatever the dtype."""
    from my3dgen.ops.skip_triton import add_skip_fused

    contribution, bias = _drawn(shape, 1, dtype), _drawn(bias_shape, 2)
    images = () if image_shape is None else (_drawn(image_shape, 3),)
    inputs = (contribution, bias, *images)
    image = images[0] if images else None
    one = add_skip_fused(image, contribution, bias, clamp, up=up)
    # by the filter's definition
    doubled = (
        upfirdn(image, lowpass_filter(), up=2, padding=(2, 1, 2, 1), gain=4.0) if images and up else image
    )
    other = add_skip(doubled, contribution.float(), bias, clamp, up=False)
    assert one.dtype == torch.float32
    assert one.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    probe = _drawn(tuple(other.shape), 9).detach()
    found = torch.autograd.grad((one * probe).sum(), inputs)
    expected = torch.autograd.grad((other * probe).sum(), inputs)
    assert found[0].dtype == dtype
    # copied or zero; to bfloat16 the interpreter cuts off where a GPU rounds
    torch.testing.assert_close(found[0], expected[0], atol=0, rtol=0 if dtype == torch.float32 else 2**-7)
    for a, b in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@interpreted
@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize(("channels", "biases"), [(3, ()), (5, (2,)), (96, ())])
def test_up(channels: int, biases: Size, clamp: float | None) -> None:
    _compare((2, channels, 4, 5), (2, channels, 8, 10), (*biases, channels), clamp, up=True)


@interpreted
def test_the_smallest_image() -> None:
    _compare((1, 3, 1, 1), (1, 3, 2, 2), (3,), None, up=True)


@interpreted
@pytest.mark.parametrize("channels", [3, 32])
def test_rows_of_several_programs(channels: int) -> None:
    _compare((1, channels, 2, 300), (1, channels, 4, 600), (channels,), 0.8, up=True)


@interpreted
@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize(("channels", "biases"), [(3, (2,)), (5, ())])
def test_same_resolution(channels: int, biases: Size, clamp: float | None) -> None:
    shape = (2, channels, 7, 6)
    _compare(shape, shape, (*biases, channels), clamp, up=False)


@interpreted
@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("up", [False, True])  # the first block has nothing to enlarge either way
def test_no_image(clamp: float | None, up: bool) -> None:
    _compare(None, (2, 5, 4, 4), (5,), clamp, up=up)


@interpreted
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_bfloat16(clamp: float | None) -> None:
    """What is read and written is rounded, the sums are not; the readable operations round in between."""
    _compare((2, 5, 3, 4), (2, 5, 6, 8), (2, 5), clamp, up=True, dtype=torch.bfloat16)
    from my3dgen.ops.skip_triton import add_skip_fused

    image, contribution, bias = (
        _drawn((2, 5, 3, 4), 3), _drawn((2, 5, 6, 8), 1, torch.bfloat16), _drawn((5,), 2),
    )  # fmt: skip
    torch.testing.assert_close(
        add_skip_fused(image, contribution, bias, clamp, up=True),
        add_skip(image, contribution, bias, clamp, up=True),
        atol=0.03, rtol=0,
    )  # fmt: skip


@interpreted
@pytest.mark.parametrize(("image", "contribution", "bias"), [(1, 2, ()), (2, 1, ()), (1, 2, (2,))])
def test_fused_shared_inputs(image: int, contribution: int, bias: Size) -> None:
    _compare((image, 3, 2, 3), (contribution, 3, 4, 6), (*bias, 3), 0.8, up=True)


@interpreted
def test_other_orders_of_memory_and_frozen_inputs() -> None:
    """Rows of channels last or not; whoever wants no gradient leaves the others'."""
    from my3dgen.ops.skip_triton import add_skip_fused

    image, contribution, bias = _drawn((2, 5, 3, 4), 3), _drawn((2, 5, 6, 8), 1), _drawn((5,), 2)
    probe = _drawn((2, 5, 6, 8), 9).detach()
    expected = torch.autograd.grad(
        (add_skip(image, contribution, bias, 0.8, up=True) * probe).sum(), (image, contribution, bias)
    )
    for wanted in (0, 1, 2):
        inputs = [
            x.detach().contiguous().requires_grad_(i == wanted)
            for i, x in enumerate((image, contribution, bias))
        ]
        out = add_skip_fused(*inputs, 0.8, up=True)
        (found,) = torch.autograd.grad((out * probe).sum(), inputs[wanted])
        torch.testing.assert_close(found, expected[wanted], atol=1e-5, rtol=1e-5)


@interpreted
def test_a_number_that_is_none_stays_one() -> None:
    """A bound does not hide that a computation went wrong."""
    from my3dgen.ops.skip_triton import add_skip_fused

    out = add_skip_fused(None, torch.full((1, 3, 2, 2), torch.nan), torch.zeros(3), 0.8, up=False)
    assert out.isnan().all()


@interprets
def test_in_the_interpreter() -> None:
    pass_in_the_interpreter(__file__)
