"""Ranks and extras as text."""

import pytest

from my3dgen.errors import UserError
from my3dgen.ranks import EXTRAS, parse_extras, parse_ranks, rank_of

RESOLUTIONS = (4, 8, 16)


def test_the_narrowest_group_decides() -> None:
    ranks = parse_ranks("backbone=1, superresolution=2,affine=3,torgb=0,b8=5", RESOLUTIONS)
    path = "backbone.synthesis.b{}.conv1.weight".format
    assert [rank_of(path(resolution), 9, ranks) for resolution in RESOLUTIONS] == [1, 5, 1]
    assert rank_of("backbone.synthesis.b8.conv1.affine.weight", 9, ranks) == 3
    assert rank_of("superresolution.block0.torgb.weight", 9, ranks) == 0
    assert rank_of("superresolution.block0.conv0.weight", 9, ranks) == 2
    assert rank_of("superresolution.block0.conv0.weight", 9, {}) == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv=1", "unknown group 'conv'; groups are backbone"),
        ("b32=1", "unknown group 'b32'"),
        ("affine", "affine: the rank must be"),
        ("affine=-1", "from 0 to 64"),
        ("affine=65", "from 0 to 64"),
        ("affine=" + "9" * 5000, "from 0 to 64"),
        ("affine=²", "from 0 to 64"),
        ("affine=1,affine=2", "twice the group 'affine'"),
    ],
)
def test_wrong_ranks_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        parse_ranks(text, RESOLUTIONS)
    assert len(str(refusal.value)) < 200


def test_extras() -> None:
    assert parse_extras("all") == EXTRAS
    assert parse_extras("none") == ()
    assert parse_extras("noise, const") == ("const", "noise")
    with pytest.raises(UserError, match="'decoder' is not all, none or some of const, bias, noise"):
        parse_extras("bias,decoder")
