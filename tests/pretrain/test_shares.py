"""Draws of several processes are together those of one."""

import pytest
import torch

from my3dgen.pretrain.discriminator import deviation
from my3dgen.pretrain.shares import Shared, share

SIZE, BATCH = 2, 8


def _drawn(rank: int, size: int, batch: int) -> list[torch.Tensor]:
    """What a step draws, in every form of the functions that draw."""
    torch.manual_seed(3)
    rng = torch.Generator().manual_seed(4)
    with Shared(rank, size, batch):
        return [
            torch.rand(batch, generator=rng) < 0.5,
            torch.rand(batch, 6, 2, generator=rng),
            torch.rand((batch, 5), generator=rng, device="cpu", dtype=torch.float32),
            torch.randn(batch // 2, 7),
            torch.randn(size=(batch, 3)),
            torch.randint(1000, (batch,), generator=rng),
            torch.randint(5, 900, (batch, 4), generator=rng),
            torch.randint(5, high=900, size=(batch,), generator=rng),
            torch.rand_like(torch.zeros(batch, 3)),
            torch.randn_like(torch.zeros(batch, 3, dtype=torch.float64)),
        ]


def test_shares_are_the_rows_of_one_draw() -> None:
    one = _drawn(0, 1, SIZE * BATCH)
    parts = [_drawn(rank, SIZE, BATCH) for rank in range(SIZE)]
    for whole, *pieces in zip(one, *parts, strict=True):
        for rank, piece in enumerate(pieces):
            assert piece.dtype == whole.dtype
            assert torch.equal(piece, share(whole, rank, SIZE, BATCH // 4))


def test_every_row_belongs_to_one_process() -> None:
    rows = torch.arange(24)
    assert sorted(torch.cat([share(rows, rank, 3, 2) for rank in range(3)]).tolist()) == rows.tolist()


def test_halves_and_alternate_rows_are_those_of_the_whole() -> None:
    rows = torch.arange(SIZE * BATCH)
    for rank in range(SIZE):
        mine = share(rows, rank, SIZE, BATCH // 4)
        assert torch.equal(mine < len(rows) // 2, torch.arange(BATCH) < BATCH // 2)
        assert torch.equal(mine % 2, torch.arange(BATCH) % 2)
        half = share(rows[: len(rows) // 2], rank, SIZE, BATCH // 4)
        assert torch.equal(half, mine[: BATCH // 2])


def test_the_discriminators_groups_are_those_of_the_whole() -> None:
    features = torch.randn(SIZE * BATCH, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    whole = deviation(features, 4)
    for rank in range(SIZE):
        mine = deviation(share(features, rank, SIZE, BATCH // 4), 4)
        assert torch.equal(mine, share(whole, rank, SIZE, BATCH // 4))


def test_gradients_pass_and_other_functions_are_left_alone() -> None:
    with Shared(1, SIZE, BATCH):
        weight = torch.ones(BATCH, requires_grad=True)
        (weight * torch.rand(BATCH)).sum().backward()
        assert torch.zeros(BATCH).shape == (BATCH,)
    assert weight.grad is not None and weight.grad.std() > 0


@pytest.mark.parametrize("shape", [(), (3,), (6, 2)])
def test_draws_of_other_lengths_keep_their_shape(shape: tuple[int, ...]) -> None:
    with Shared(1, SIZE, BATCH):
        assert torch.randn(shape).shape == shape
