"""The factor vector: N(0, 1), one row per seed, blocks that can be exchanged."""

import torch

from my3dgen.synthetic import factors as f


def test_rows_depend_on_their_seed_alone() -> None:
    many = f.sample_factors(range(100, 110))
    alone = f.sample_factors([105])
    assert torch.equal(many[5:6], alone)
    assert torch.equal(many.flip(0), f.sample_factors(reversed(range(100, 110))))


def test_factors_are_standard_normal_and_uncorrelated() -> None:
    sample = f.sample_factors(range(20_000)).double()
    assert sample.mean(0).abs().max() < 0.035  # 5 standard errors
    assert (sample.var(0) - 1).abs().max() < 0.06
    assert (sample**4).mean() - 3 < 0.05
    correlation = sample.T @ sample / len(sample) - torch.eye(f.NUM_FACTORS)
    assert correlation.fill_diagonal_(0).abs().max() < 0.04
    assert (sample[1:] * sample[:-1]).mean().abs() < 0.003  # neighbouring seeds


def test_streams_are_independent() -> None:
    first, second = f.normals(range(5000), 8), f.normals(range(5000), 8, stream=1)
    assert torch.equal(first, f.sample_factors(range(5000))[:, :8])
    assert (first.T @ second / 5000).abs().max() < 0.08


def test_blocks_cover_the_vector_once() -> None:
    covered = [i for block in f.FACTORS.values() for i in range(block.start, block.stop)]
    assert covered == list(range(f.NUM_FACTORS))
    assert f.NUM_FACTORS <= 192
    assert f.FACTORS["shape"].stop - f.FACTORS["shape"].start == 58


def test_same_person_performs_anew() -> None:
    person, other = f.sample_factors([1, 2]), f.sample_factors([3, 4])
    mixed = f.with_blocks(person, other)
    for name, place in f.FACTORS.items():
        source = other if name in f.PERFORMANCE else person
        assert torch.equal(mixed[:, place], source[:, place])


def test_with_factors_sets_one_entry() -> None:
    before = f.sample_factors([7])
    after = f.with_factors(before, "expression", smile=1.5)
    assert f.block(after, "expression")["smile"].item() == 1.5
    assert (before != after).sum() == 1


def test_seed_ranges_are_apart() -> None:
    assert f.TRAIN_SEEDS.stop <= f.HELD_OUT_SEEDS.start
    assert f.performance_seed(0, 0) >= 1 << 60
    assert f.performance_seed((1 << 40) - 1, 65535) < 1 << 63
