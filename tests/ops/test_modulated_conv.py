"""Modulated convolution against EG3D's numbers, and its low-rank path against forming the weight."""

import json
from pathlib import Path

import pytest
import torch

from my3dgen.ops.bias_act import bias_act
from my3dgen.ops.low_rank import LowRank
from my3dgen.ops.modulated_conv import modulated_conv2d, modulated_layer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "eg3d-golden.json").read_text())["micro"][
    "modconv"
]
X = torch.arange(8.0).reshape(1, 2, 2, 2) / 8
W = (torch.arange(54.0).reshape(3, 2, 3, 3) - 27) / 27
S = torch.tensor([GOLDEN["styles"]])


def test_demodulated() -> None:
    expected = torch.tensor(GOLDEN["demod_same"]).reshape(1, 3, 2, 2)
    torch.testing.assert_close(modulated_conv2d(X, W, S), expected, atol=1e-6, rtol=1e-5)


def test_plain() -> None:
    expected = torch.tensor(GOLDEN["nodemod_same_ch0"]).reshape(2, 2)
    y = modulated_conv2d(X, W, S, demodulate=False)
    torch.testing.assert_close(y[0, 0], expected, atol=1e-6, rtol=1e-5)


def test_upsampling() -> None:
    expected = torch.tensor(GOLDEN["up2_demod_ch0"])
    y = modulated_conv2d(X, W, S, upsample=True)
    torch.testing.assert_close(y[0, 0], expected, atol=1e-6, rtol=1e-5)


def _draw(batch: int, *, batched: bool) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    lead = (batch,) if batched else ()
    shapes = [(batch, 4, 5, 5), (6, 4, 3, 3), (batch, 4), (*lead, 6, 36), (*lead, 6, 6)]
    return tuple(torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_() for shape in shapes)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_low_rank_path_equals_the_formed_weight(batched: bool, up: bool, demodulate: bool) -> None:
    """Values and all gradients, in float64."""
    x, w, s, a, b = _draw(3, batched=batched)
    change = LowRank(a, b, 0.7)
    fast = modulated_conv2d(x, w, s, demodulate=demodulate, upsample=up, change=change)
    formed = w + change.product().reshape(-1, *w.shape)
    slow = torch.cat(
        [
            modulated_conv2d(
                x[i : i + 1], formed[i % len(formed)], s[i : i + 1], demodulate=demodulate, upsample=up
            )
            for i in range(3)
        ]
    )
    torch.testing.assert_close(fast, slow)
    probe = torch.randn_like(fast)
    for one, other in zip(
        torch.autograd.grad((fast * probe).sum(), (x, w, s, a, b)),
        torch.autograd.grad((slow * probe).sum(), (x, w, s, a, b)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)


def test_a_zero_change_is_no_change() -> None:
    x, w, s, a, _ = _draw(3, batched=True)
    nothing = LowRank(a, torch.zeros(3, 6, 6, dtype=torch.float64), 1.0)
    assert torch.equal(modulated_conv2d(x, w, s, change=nothing), modulated_conv2d(x, w, s))


def test_one_style_serves_all_images() -> None:
    x, w, s, *_ = _draw(3, batched=False)
    torch.testing.assert_close(modulated_conv2d(x, w, s[:1]), modulated_conv2d(x, w, s[:1].expand(3, -1)))


def _layer(batch: int, *, batched: bool, trains: bool) -> dict:
    """Arguments of a layer whose features outnumber its weight."""
    rng = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_(trains)

    lead = (batch,) if batched else ()
    return {
        "x": drawn(batch, 4, 9, 9),
        "weight": drawn(6, 4, 3, 3),
        "styles": drawn(batch, 4),
        "bias": drawn(*lead, 6),
        "change": LowRank(drawn(*lead, 6, 36), drawn(*lead, 6, 6), 0.7),
    }


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize(("batch", "batched"), [(1, False), (1, True), (3, True)])
def test_a_layer_is_its_parts(batch: int, batched: bool, up: bool, noisy: bool, trains: bool) -> None:
    """Values and all gradients, in float64; one picture without gradients takes the path of its own."""
    given = _layer(batch, batched=batched, trains=trains)
    x, bias, change = given["x"], given["bias"], given["change"]
    side = 18 if up else 9
    noise = torch.randn(batch, 1, side, side, dtype=torch.float64).requires_grad_(trains) if noisy else None
    fast = modulated_layer(**given, noise=noise, upsample=up, clamp=1.5)
    slow = modulated_conv2d(x, given["weight"], given["styles"], upsample=up, change=change)
    slow = slow if noise is None else slow + noise
    slow = bias_act(slow, bias, activation="lrelu", clamp=1.5)
    torch.testing.assert_close(fast, slow)
    assert (slow.abs() == 1.5).any()  # the bound is met
    if trains:
        probe = torch.randn_like(fast)
        leaves = [x, given["weight"], given["styles"], bias, change.A, change.B, *([noise] if noisy else [])]
        for one, other in zip(
            torch.autograd.grad((fast * probe).sum(), leaves),
            torch.autograd.grad((slow * probe).sum(), leaves),
            strict=True,
        ):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_one_by_one_kernels_keep_the_memory_order(order: torch.memory_format) -> None:
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(3, 4, 5, 6, generator=rng).contiguous(memory_format=order)
    weight, styles = torch.randn(7, 4, 1, 1, generator=rng), torch.randn(3, 4, generator=rng)
    y = modulated_conv2d(x, weight, styles, demodulate=False)
    expected = torch.nn.functional.conv2d(x * styles[:, :, None, None], weight)
    torch.testing.assert_close(y, expected)
    assert y.is_contiguous(memory_format=order)


def test_a_zero_change_is_no_change_where_weights_are_formed() -> None:
    given = _layer(1, batched=False, trains=False)
    nothing = LowRank(given["change"].A, torch.zeros_like(given["change"].B), 1.0)
    with_change = modulated_layer(**{**given, "change": nothing})
    assert torch.equal(with_change, modulated_layer(**{**given, "change": None}))
