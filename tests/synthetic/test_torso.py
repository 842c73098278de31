"""The torso turns, the head does not, and the neck between them does not tear."""

import math

import torch

from my3dgen.synthetic.asset import load_asset
from my3dgen.synthetic.factors import NUM_FACTORS, sample_factors, with_factors
from my3dgen.synthetic.scene import build_scenes
from my3dgen.synthetic.torso import NECK, torso_yaw, turn, turned_share


def test_yaw_is_about_twelve_degrees_and_bounded() -> None:
    yaw = torso_yaw(sample_factors(range(4000))).rad2deg()
    assert abs(yaw.mean()) < 1
    assert 10 < yaw.std() < 12.5
    wild = with_factors(torch.zeros(1, NUM_FACTORS), "expression", torso_yaw=50.0)
    assert 35 < torso_yaw(wild).rad2deg() < 36.01


def test_a_quarter_turn_carries_front_to_the_side() -> None:
    points = torch.tensor([[[0.2, 5.0, 1.3]]])
    turned = turn(points, torch.ones(1), torch.tensor([math.pi / 2]), torch.tensor([[0.2, 0.3]]))
    torch.testing.assert_close(turned, torch.tensor([[[1.2, 5.0, 0.3]]]))


def test_shoulders_turn_below_a_still_face() -> None:
    asset = load_asset()
    share = turned_share(asset.template)
    assert share[asset.masks["face"] > 0.9].max() < 0.05
    assert share[asset.template[:, 1] < 5.6].min() == 1
    turned = turn(asset.template[None], share, torch.tensor([math.radians(36)]), torch.tensor([NECK]))[0]
    edge = asset.triangles[:, [0, 1]]
    length, after = ((p[edge[:, 0]] - p[edge[:, 1]]).norm(dim=1) for p in (asset.template, turned))
    assert (after / length).max() < 2  # at the largest turn there is

    factors = sample_factors([3]).expand(2, -1)
    factors = torch.cat([with_factors(factors[:1], "expression", torso_yaw=y) for y in (-1.5, 1.5)])
    left, right = build_scenes(factors).points[:, : len(asset.template)]
    moved = (left - right).norm(dim=1)
    assert moved[asset.masks["face"] > 0.9].max() < 0.01
    assert moved[asset.template[:, 0].argmax()] > 0.1
