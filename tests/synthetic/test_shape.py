"""Heads from factors: framing, expressions, eyes and teeth; all in batches."""

import dataclasses
import functools

import pytest
import torch
from torch import Tensor

from my3dgen.cameras import frontal_camera, project
from my3dgen.synthetic.asset import load_asset
from my3dgen.synthetic.factors import sample_factors, with_blocks, with_factors
from my3dgen.synthetic.shape import Geometry, build_geometry, macro_weights

SEEDS = range(1_000_000_000, 1_000_000_008)


@functools.cache
def heads(**expression: float) -> Geometry:
    """The same eight people, all with one expression."""
    people = sample_factors(SEEDS)
    people = with_blocks(people, torch.zeros_like(people))
    return build_geometry(load_asset(), with_factors(people, "expression", **expression))


def at_rest() -> Geometry:
    return heads(smile=-0.4)


def lips(geometry: Geometry, points: Tensor) -> Tensor:
    return points[:, load_asset().masks["lips"] > 0.6]


def test_framing_is_the_crop_rule() -> None:
    """EG3D spec 3.4: eyes 0.266 of the width apart, mouth 0.288 below, eyes 0.12 above the centre."""
    people = sample_factors(range(1_000_000_000, 1_000_000_060))
    people = with_blocks(people, torch.zeros_like(people))
    rest = build_geometry(load_asset(), people)
    eyes = rest.to_world(rest.eyes[:, :, 0])  # the pupils
    mouth = rest.to_world(lips(rest, rest.neutral)).mean(1, keepdim=True)
    seen = project(torch.cat([eyes, mouth], 1), frontal_camera().expand(len(eyes), -1))
    apart, below = seen[:, 0, 0] - seen[:, 1, 0], seen[:, 2, 1] - seen[:, :2, 1].mean(1)
    # the average head here is longer between eyes and mouth than the rule's (1.144 eye distances, not
    # 1.083), and no scale meets both: measured on 400 heads, 0.2587 and 0.2960 (deviations 0.010, 0.011)
    assert (apart.mean() - 0.266).abs() < 0.013
    assert (below.mean() - 0.288).abs() < 0.013
    torch.testing.assert_close(apart / 0.266 + below / 0.288, torch.full((60,), 2.0), atol=0.05, rtol=0)
    middle = seen[:, :2].mean(1)
    torch.testing.assert_close(middle, torch.tensor([[0.5, 0.38]]).expand(60, 2), atol=0.008, rtol=0)
    torch.testing.assert_close(rest.to_world(rest.eye_centres)[..., 2].mean(1), torch.full((60,), 0.175))


def test_heads_fit_the_box() -> None:
    rest = at_rest()
    head = rest.to_world(rest.neutral)[:, load_asset().template[:, 1] > 6.2]
    assert head.abs().amax((0, 1)).max() < 0.5


def test_a_batch_is_its_heads() -> None:
    people = sample_factors(SEEDS)
    together, alone = build_geometry(load_asset(), people), build_geometry(load_asset(), people[3:4])
    for field in ("expressed", "normals", "eyes", "mouth", "mouth_normals", "lashes", "origin"):
        # cancellation in tiny triangles of the mouth's corners amplifies rounding in the normals
        atol = 1e-3 if "normals" in field else 2e-5
        torch.testing.assert_close(getattr(together, field)[3:4], getattr(alone, field), atol=atol, rtol=0)


def test_people_differ() -> None:
    rest = at_rest()
    face = rest.to_world(rest.neutral)[:, load_asset().masks["face"] > 0.5].flatten(1)
    distance = torch.cdist(face, face) / (face.shape[1] / 3) ** 0.5
    nearest = (distance + torch.eye(8) * 9).amin(1)
    assert nearest.min() > 0.004  # 0.025 world units are a centimetre


def test_expression_leaves_the_neutral_face_alone() -> None:
    rest, grin = at_rest(), heads(smile=2.0, teeth=1.5)
    assert torch.equal(rest.neutral, grin.neutral)
    assert torch.equal(rest.origin, grin.origin)
    assert (rest.expressed - grin.expressed).norm(dim=-1).amax() > 0.05


def test_smile_widens_the_mouth_and_lifts_its_corners() -> None:
    rest, grin = at_rest(), heads(smile=2.0, teeth=1.5)
    before, after = lips(rest, rest.expressed), lips(grin, grin.expressed)
    assert (after[..., 0].amax(1) - before[..., 0].amax(1)).min() > 0.03
    corner = before[..., 0].argmax(1)[:, None, None].expand(-1, 1, 3)
    assert (after.gather(1, corner) - before.gather(1, corner))[..., 1].min() > 0.04


def test_jaw_takes_the_lower_teeth_along() -> None:
    rest, wide = at_rest(), heads(smile=-0.4, jaw=2.5)
    upper = len(load_asset().mouth.upper)
    lower = upper + len(load_asset().mouth.lower)
    assert torch.equal(rest.mouth[:, :upper], wide.mouth[:, :upper])
    fall = (rest.mouth - wide.mouth)[:, upper:lower, 1].mean(1)
    assert fall.min() > 0.05


def test_teeth_stay_behind_the_lips() -> None:
    rest = at_rest()
    front = lips(rest, rest.expressed)[..., 2].amax(1)
    assert (front - rest.mouth[..., 2].amax(1)).min() > 0.02


def test_incisors_face_forward() -> None:
    rest, mouth = at_rest(), load_asset().mouth
    enamel = mouth.material[:, 0] > 0.5
    front = enamel & (rest.mouth[0, :, 2] > rest.mouth[0, enamel, 2].max() - 0.01)
    assert rest.mouth_normals[0, front, 2].mean() > 0.6


@pytest.mark.parametrize(("factor", "axis"), [("gaze_yaw", 0), ("gaze_pitch", 1)])
def test_gaze_turns_both_eyes(factor: str, axis: int) -> None:
    there, back = heads(**{factor: 2.0}), heads(**{factor: -2.0})
    assert ((there.eyes[:, :, 0] - back.eyes[:, :, 0])[..., axis] > 0.02).all()
    assert torch.equal(there.eye_centres, back.eye_centres)


def test_lids_follow() -> None:
    open_, low = heads(lids=-2.0), heads(lids=2.5)
    upper = load_asset().lash_upper > 0.5
    assert (open_.lashes - low.lashes)[:, upper, :2, 1].mean(1).min() > 0.01


def test_extremes_are_capped() -> None:
    for value in (-9.0, 9.0):
        people = sample_factors([1])
        wild = build_geometry(load_asset(), torch.full_like(people, value))
        for field in dataclasses.fields(wild):
            numbers = getattr(wild, field.name)
            if isinstance(numbers, Tensor):
                assert torch.isfinite(numbers).all(), field.name
        assert wild.performance.units.max() <= 1.05
        assert wild.performance.units.min() >= 0


def test_small_changes_stay_small() -> None:
    """No hidden switches: moving all factors a little moves every vertex a little."""
    people = sample_factors(SEEDS)
    step = 1e-3 * sample_factors([99]).sign()
    before, after = (build_geometry(load_asset(), x) for x in (people, people + step))
    assert (before.expressed - after.expressed).norm(dim=-1).max() < 0.004
    assert (before.mouth - after.mouth).norm(dim=-1).max() < 0.004


def test_macro_weights_are_shares() -> None:
    weights = macro_weights(sample_factors(range(200)))
    torch.testing.assert_close(weights[:, :12].sum(1), torch.ones(200))
    torch.testing.assert_close(weights[:, 12:].sum(1), torch.ones(200))
    assert weights.min() >= 0
