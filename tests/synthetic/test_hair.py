"""Scalp hair: tied back, swept, tucked, thinning towards its ends; always inside the box."""

import pytest
import torch

from my3dgen.synthetic import rasterise
from my3dgen.synthetic.asset import load_asset
from my3dgen.synthetic.factors import NUM_FACTORS, with_factors
from my3dgen.synthetic.hair import NODES, Hair, Scalp, _first_part, grow_hair, hair_style
from my3dgen.synthetic.scene import BOX, build_scenes, scene_kit
from my3dgen.synthetic.tied import gathered_directions, tie_direction

WOMAN = with_factors(
    with_factors(torch.zeros(1, NUM_FACTORS), "macro", sex=-2.0), "hair", length=0.5, fringe=-2.0
)


@pytest.fixture(scope="module")
def scalp() -> Scalp:
    return scene_kit(load_asset()).scalp


def grown(scalp: Scalp, **hair: float) -> Hair:
    return grow_hair(scalp, hair_style(with_factors(WOMAN, "hair", **hair)))


def behind(scalp: Scalp, hair: Hair) -> torch.Tensor:
    """The share of strands whose ends lie near the middle of the back."""
    end = hair.nodes[0, :, -1]
    return ((end[:, 0].abs() < 0.35) & (end[:, 2] < scalp.centre[2] - 0.5)).float().mean()


def test_tying_gathers_the_strands_behind(scalp: Scalp) -> None:
    loose, tail, bun = (
        grown(scalp, tied=-1.0),
        grown(scalp, tied=2.0, bun=-1.0),
        grown(scalp, tied=2.0, bun=2.0),
    )
    assert behind(scalp, loose) < 0.5
    assert behind(scalp, tail) > 0.85
    assert behind(scalp, bun) > 0.85
    lowest = [hair.nodes[0, :, -1, 1].median() for hair in (tail, bun)]
    assert lowest[0] < lowest[1] - 0.4  # a tail hangs, a bun does not


def test_the_tie_is_as_high_as_its_factor(scalp: Scalp) -> None:
    low, high = (
        grown(scalp, tied=2.0, bun=2.0, tie_height=h).nodes[0, :, -1, 1].median() for h in (-1.0, 1.0)
    )
    assert high > low + 0.3


def test_short_hair_cannot_be_tied(scalp: Scalp) -> None:
    man = with_factors(with_factors(WOMAN, "macro", sex=2.0), "hair", length=-0.5)
    assert hair_style(with_factors(man, "hair", tied=3.0)).tied.item() == 0
    shapes = [
        grow_hair(scalp, hair_style(with_factors(man, "hair", tied=t, tie_height=t))).nodes
        for t in (0.0, 3.0)
    ]
    assert torch.equal(*shapes)


def test_tying_is_continuous(scalp: Scalp) -> None:
    at = [grown(scalp, tied=t).nodes for t in (0.38, 0.381, 0.39)]
    near, far = ((other - at[0]).norm(dim=-1).mean() for other in at[1:])
    assert 0 < near < 0.25 * far


def test_a_fringe_is_swept_to_the_side_of_its_factor(scalp: Scalp) -> None:
    left, right = (grown(scalp, tied=-1.0, fringe=2.0, sweep=s).nodes[0] for s in (-1.5, 1.5))
    front = (scalp.root[:, 2] > 0.95) & (scalp.root[:, 0].abs() < 0.3)
    front &= (left[:, -1] - left[:, 0]).norm(dim=1) > 0.3  # there is hair in the fringe
    assert front.sum() > 30
    assert right[front, -1, 0].mean() > left[front, -1, 0].mean() + 0.15


def test_tucking_draws_hair_behind_the_ears(scalp: Scalp) -> None:
    hanging, tucked = (grown(scalp, tied=-1.0, tuck=t).nodes[0, :, 8:] for t in (-2.0, 2.0))
    beside = (hanging[..., 0].abs() > 0.6) & (hanging[..., 2] > 0.25) & (hanging[..., 1] < scalp.centre[1])
    assert beside.sum() > 100
    assert tucked[beside][:, 2].mean() < hanging[beside][:, 2].mean() - 0.05


@pytest.mark.parametrize("bun", [-2.0, 2.0])
def test_tied_hair_stays_inside_the_box(bun: float) -> None:
    wild = with_factors(WOMAN, "hair", length=2.5, volume=2.5, tied=2.0, bun=bun, tie_height=2.0)
    strands = build_scenes(wild).hair.nodes
    assert torch.isfinite(strands).all()
    assert strands.abs().max() <= BOX
    # the clamp would flatten what reaches the sides; only a tail's end may meet the floor
    assert (strands[..., [0, 2]].abs() >= BOX).float().mean() < 0.001


def test_great_circles_run_from_roots_to_the_tie() -> None:
    roots = torch.nn.functional.normalize(
        torch.randn(50, 3, generator=torch.Generator().manual_seed(4)), dim=1
    )
    height = torch.tensor([0.3, -0.2])
    ways = gathered_directions(roots, height, 9)
    torch.testing.assert_close(ways[:, :, 0], roots.expand(2, -1, -1), atol=1e-4, rtol=0)
    assert ((ways[:, :, -1] * tie_direction(height)[:, None]).sum(-1) > 0.97).all()
    torch.testing.assert_close(ways.norm(dim=-1), torch.ones(2, 50, 9))


def test_the_first_part_of_a_strand() -> None:
    line = torch.arange(NODES, dtype=torch.float32)[None, None, :, None].expand(1, 3, -1, 3)
    part = _first_part(line, torch.tensor([[0.0, 0.5, 1.0]]))
    torch.testing.assert_close(part[0, 0], torch.zeros(NODES, 3))
    torch.testing.assert_close(part[0, 1], 0.5 * line[0, 0])
    torch.testing.assert_close(part[0, 2], line[0, 0])


def test_strands_thin_out_towards_their_ends() -> None:
    size, nodes = 256, 5
    x = torch.linspace(4, 252, nodes)
    rows = torch.arange(8, 248, 4, dtype=torch.float32) + 0.5
    screen = torch.stack(torch.broadcast_tensors(x, rows[:, None], torch.ones(1)), -1)[None]
    plain, thin = (rasterise.new_buffer(1, size, "cpu") for _ in range(2))
    rasterise.draw_segments(plain, size, screen, 0)
    rasterise.draw_segments(thin, size, screen, 0, taper=True)
    cover = [rasterise.unpack(b)[2].view(size, size).float() for b in (plain, thin)]
    near, far = slice(8, 100), slice(230, 250)
    assert torch.equal(cover[0][:, near], cover[1][:, near])
    assert cover[1][:, far].sum() < 0.4 * cover[0][:, far].sum()
    assert cover[1][:, far].sum() > 0
