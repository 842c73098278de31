"""The distance of feature maps: its kernels against the readable case, in Triton's interpreter.

The interpreter has to be chosen before Triton is imported, so one test runs the kernels' tests in a process
of its own. No GPU is needed.
"""

import pytest
import torch
from interpreter import interpreted, interprets, pass_in_the_interpreter
from torch import Tensor

from my3dgen.perceptual import stage_distance

Size = tuple[int, ...]


def _drawn(shape: Size, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Features as they are after a ReLU: about half of them are zero."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).relu().to(dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def _compare(a: Tensor, b: Tensor) -> None:
    """Equal values and equal gradients; the twin works in float32 whatever the dtypes."""
    from my3dgen.ops.distance_triton import stage_distance_fused

    one, other = stage_distance_fused(a, b), stage_distance(a.float(), b.float())
    assert one.dtype == torch.float32
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    probe = torch.randn(other.shape, generator=torch.Generator().manual_seed(9))
    found = torch.autograd.grad((one * probe).sum(), (a, b))
    expected = torch.autograd.grad((other * probe).sum(), (a, b))
    for p, q, x in zip(found, expected, (a, b), strict=True):
        assert p.dtype == x.dtype
        assert p.isfinite().all()
        scale = q.abs().max().item()
        # to bfloat16 the interpreter cuts off where a GPU rounds
        bound = 2e-6 if x.dtype == torch.float32 else 2**-7
        torch.testing.assert_close(p, q, atol=bound * scale, rtol=bound)


@interpreted
@pytest.mark.parametrize("channels", [3, 64, 70, 384])
def test_sides_that_fill_no_program(channels: int) -> None:
    _compare(_drawn((2, channels, 9, 7), 1), _drawn((2, channels, 9, 7), 2))


@interpreted
def test_maps_that_one_program_holds() -> None:
    _compare(_drawn((2, 64, 1, 1), 1), _drawn((2, 64, 1, 1), 2))
    _compare(_drawn((1, 64, 8, 8), 1), _drawn((1, 64, 8, 8), 2))


@interpreted
@pytest.mark.parametrize(("a", "b"), [(1, 3), (3, 1)])
def test_a_batch_of_one_meets_every_other(a: int, b: int) -> None:
    _compare(_drawn((a, 70, 5, 9), 1), _drawn((b, 70, 5, 9), 2))


@interpreted
@pytest.mark.parametrize("frozen", [False, True])
def test_each_meets_its_row(frozen: bool) -> None:
    """Numbers that repeat and leave others out."""
    from my3dgen.ops.distance_triton import stage_distance_fused

    a, b, rows = _drawn((4, 70, 5, 9), 1), _drawn((3, 70, 5, 9), 2), torch.tensor([2, 0, 2, 2])
    b = b.detach() if frozen else b
    one, other = stage_distance_fused(a, b, rows), stage_distance(a, b, rows)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(other, stage_distance(a, b[rows]))
    wanted = [a] if frozen else [a, b]
    for p, q in zip(
        torch.autograd.grad(one.square().sum(), wanted),
        torch.autograd.grad(other.square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(p, q, atol=2e-6 * q.abs().max().item(), rtol=2e-6)


@interpreted
def test_vectors_of_length_zero() -> None:
    """Of one map, of the other and of both, and such that are short next to what is added."""
    from my3dgen.ops.distance_triton import stage_distance_fused

    a, b = _drawn((1, 64, 5, 4), 1).detach(), _drawn((1, 64, 5, 4), 2).detach()
    a[..., :3, 0], b[..., 2:, 0], a[..., 1] = 0, 0, a[..., 1] * 1e-6
    where = torch.zeros(5, 4, dtype=torch.bool)
    where[:, :2] = True
    for chosen in (where, ~where):  # gradients at short vectors are 1e5 times those at others
        p, q = (x[..., chosen].reshape(1, 64, 5, 2).requires_grad_() for x in (a, b))
        _compare(p, q)
    zeros = torch.zeros(1, 64, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(stage_distance_fused(zeros, zeros.detach()).sum(), zeros)
    assert torch.equal(gradient, zeros)


@interpreted
@pytest.mark.parametrize(
    ("a", "b"), [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float16", "float16")]
)
def test_half_precision(a: str, b: str) -> None:
    """What is read and written is rounded, the sums are not."""
    shape = (2, 70, 6, 5)
    _compare(_drawn(shape, 1, getattr(torch, a)), _drawn(shape, 2, getattr(torch, b)))


@interpreted
def test_equal_maps() -> None:
    from my3dgen.ops.distance_triton import stage_distance_fused

    a = _drawn((2, 64, 9, 9), 1)
    assert stage_distance_fused(a, a.detach()).abs().max() < 1e-6


@interpreted
@pytest.mark.parametrize("wanted", [0, 1])
def test_other_orders_of_memory_and_frozen_inputs(wanted: int) -> None:
    """Rows of channels last or not; whoever wants no gradient leaves the other's. The incoming gradient is
    one number that all images share, or one of every other image."""
    from my3dgen.ops.distance_triton import stage_distance_fused

    pair = [_drawn((2, 5, 6, 8), seed).detach() for seed in (1, 2)]
    pair[wanted] = pair[wanted].contiguous().requires_grad_()
    outs = [distance(*pair) for distance in (stage_distance_fused, stage_distance)]
    every_other = torch.tensor([1.0, 9.0, -3.0, 9.0])[::2]
    for gradient in (torch.ones(()).expand(2), every_other):
        one, other = (torch.autograd.grad(out, pair[wanted], gradient, retain_graph=True)[0] for out in outs)
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


@interprets
def test_in_the_interpreter() -> None:
    pass_in_the_interpreter(__file__)
