"""int8 storage: what is rounded, how far, and what stays."""

import torch

from my3dgen.int8 import from_int8, to_int8


def test_large_matrices_lose_less_than_half_a_step() -> None:
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 8, 5, 5, generator=rng) * torch.logspace(-3, 3, 16)[:, None, None, None]
    stored = to_int8({"weight": weight})
    assert stored["weight"].dtype == torch.int8
    back = from_int8(stored)
    assert back.keys() == {"weight"}
    step = weight.flatten(1).abs().amax(1) / 127
    assert ((back["weight"] - weight).flatten(1).abs().amax(1) <= 0.501 * step).all()


def test_small_tensors_are_halved_and_a_zero_channel_survives() -> None:
    tensors = {"bias": torch.linspace(-1, 1, 64), "weight": torch.zeros(64, 64)}
    back = from_int8(to_int8(tensors))
    torch.testing.assert_close(back["bias"], tensors["bias"], atol=1e-3, rtol=0)
    assert torch.equal(back["weight"], tensors["weight"])


def test_integers_without_a_scale_stay() -> None:
    assert from_int8({"index": torch.arange(5)})["index"].dtype == torch.int64
