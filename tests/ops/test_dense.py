"""Products of many rows against PyTorch's own."""

import pytest
import torch
from torch.nn.functional import linear

from my3dgen.ops.dense import MANY_ROWS, product


@pytest.mark.parametrize("rows", [MANY_ROWS, MANY_ROWS + 16, MANY_ROWS + 1, 5])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_of_many_rows(rows: int, transposed: bool, biased: bool) -> None:
    """Values and all gradients; sums of 4112 terms in another order, hence the bounds."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(7, rows, generator=rng).T if transposed else torch.randn(rows, 7, generator=rng)
    weight, bias = torch.randn(5, 7, generator=rng), torch.randn(5, generator=rng) if biased else None
    leaves = [t.requires_grad_() for t in (x, weight, bias) if t is not None]
    one, other = product(x, weight, bias), linear(x, weight, bias)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    probe = torch.randn(one.shape, generator=rng)
    for a, b in zip(
        torch.autograd.grad((one * probe).sum(), leaves),
        torch.autograd.grad((other * probe).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)
