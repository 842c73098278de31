"""Directions from pairs of heads that differ in one factor."""

import pytest
import torch

from my3dgen.config import PRESETS
from my3dgen.errors import UserError
from my3dgen.pretrain.factor_directions import agreement, directions_from_pairs, encode_pairs, known_names
from my3dgen.prior.encoder import Encoder, encoder_config

RNG = torch.Generator().manual_seed(0)
SPREAD = torch.randn(12, 12, generator=RNG) * torch.logspace(-1, 0.3, 12)
SMILE, AGE = torch.randn(2, 12, generator=RNG)


def faces(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed)) @ SPREAD.T


def measure(latents: torch.Tensor, about: str = "") -> dict[str, torch.Tensor]:
    """One scored attribute: how far latents lie along the smile."""
    return {"smile": latents @ SMILE / SMILE.square().sum()}


def pairs(step: torch.Tensor, heads: int, seed: int) -> torch.Tensor:
    """Heads moved one step either way, each seen a little differently."""
    some = faces(heads, seed)[:, None]
    sides = torch.tensor([-1.0, 1.0])[None, :, None]
    noise = 0.1 * torch.randn(heads, 2, 12, generator=torch.Generator().manual_seed(seed + 1))
    return 0.1 * some + sides * step + noise


def test_a_scored_direction_has_the_score_s_deviation_as_its_unit() -> None:
    samples = faces(3000, seed=5)
    found, facts = directions_from_pairs({"smile": pairs(SMILE, 80, 1)}, samples, measure)
    assert torch.cosine_similarity(found["smile"], SMILE, dim=0) > 0.99
    gained = measure(samples + found["smile"])["smile"] - measure(samples)["smile"]
    assert gained.mean().item() == pytest.approx(measure(samples)["smile"].std().item(), rel=0.05)
    assert facts["smile"].separation > 0.95 and facts["smile"].correlation > 0.9
    assert facts["smile"].samples == 80


def test_one_that_nothing_scores_has_the_factor_s_unit() -> None:
    found, facts = directions_from_pairs({"age": pairs(AGE, 80, 3)}, faces(3000, seed=5), measure)
    torch.testing.assert_close(found["age"], AGE, atol=0.12, rtol=0)
    assert facts["age"].scale == 1.0 and set(facts["age"].spill) == {"smile"}


def test_pairs_that_do_not_differ_are_refused() -> None:
    same = faces(40, 1)[:, None].expand(-1, 2, -1)
    with pytest.raises(UserError, match="none of these attributes"):
        directions_from_pairs({"smile": same}, faces(500, seed=5), measure)
    with pytest.raises(UserError, match="too few"):
        directions_from_pairs({"smile": same[:4]}, faces(500, seed=5), measure)


def test_agreement_counts_where_latents_are_white() -> None:
    samples = faces(3000, seed=6)
    assert agreement(SMILE, 3 * SMILE, samples) == pytest.approx(1)
    one, other = SPREAD @ torch.eye(12)[0], SPREAD @ torch.eye(12)[1]
    assert abs(agreement(one, other, samples)) < 0.1  # white axes, whatever they are in W


def test_heads_of_a_pair_differ_in_their_factor_alone() -> None:
    torch.manual_seed(0)
    encoder = Encoder(encoder_config(PRESETS["tiny"])).eval().requires_grad_(False)
    found = encode_pairs(encoder, "smile", 3, batch=2)
    assert found.shape == (3, 2, PRESETS["tiny"].w_dim)
    between = (found[0] - found[1]).norm()
    assert 0 < (found[:, 1] - found[:, 0]).norm(dim=1).max() < between
    torch.testing.assert_close(encode_pairs(encoder, "smile", 3, batch=2), found)


def test_names_without_a_factor_are_refused() -> None:
    assert "smile" in known_names(()) and known_names(["age"]) == ("age",)
    with pytest.raises(UserError, match="no factor is behind 'charm'"):
        known_names(["charm"])
