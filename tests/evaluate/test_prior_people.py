import math

import pytest
import torch

from my3dgen.cameras import angles_from_camera
from my3dgen.config import PRESETS
from my3dgen.evaluate.prior_people import (
    MOST_HEADS,
    MOST_SEEDS,
    RESERVED,
    compared_seeds,
    gather,
    inverted_seeds,
    offsets,
    photograph_people,
    source_cameras,
)
from my3dgen.synthetic.factors import HELD_OUT_SEEDS, TRAIN_SEEDS


def test_no_head_is_met_twice():
    spans = [
        part(seed, MOST_HEADS) for seed in (0, 1, MOST_SEEDS - 1) for part in (inverted_seeds, compared_seeds)
    ]
    seen = set()
    for span in spans:
        assert len(span) == MOST_HEADS
        assert span[0] in HELD_OUT_SEEDS and span[-1] in HELD_OUT_SEEDS
        assert span[0] not in TRAIN_SEEDS and span[-1] not in TRAIN_SEEDS
        assert seen.isdisjoint(span)
        seen.update(span)
    assert seen.isdisjoint(HELD_OUT_SEEDS[:RESERVED])
    assert list(inverted_seeds(3, 9))[:4] == list(inverted_seeds(3, 4))


@pytest.mark.parametrize(("seed", "count"), [(-1, 1), (MOST_SEEDS, 1), (0, 0), (0, MOST_HEADS + 1)])
def test_seeds_beyond_the_span_are_refused(seed, count):
    with pytest.raises(ValueError):
        inverted_seeds(seed, count)


def test_source_cameras_are_spread_as_said_and_depend_on_the_seed_alone():
    config = PRESETS["mini"]
    seeds = inverted_seeds(0, 2000)
    yaw, pitch = angles_from_camera(source_cameras(seeds, config))
    assert yaw.abs().max() <= 0.5 + 1e-5
    assert yaw.std() == pytest.approx(0.24, abs=0.02)  # 0.25, a little less for the clipping
    assert pitch.mean() == pytest.approx(0.02, abs=0.01) and pitch.std() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(source_cameras(seeds[7:9], config), source_cameras(seeds, config)[7:9])


def test_views_are_turned_by_their_offsets():
    config = PRESETS["tiny"]
    seeds = inverted_seeds(0, 2)
    people = gather(list(photograph_people(seeds, config, "cpu")))
    assert len(people) == 2 and people.rgb.shape == (2, 7, 3, 64, 64) and people.depth.shape == (2, 64, 64)
    yaw, pitch = angles_from_camera(people.cameras.flatten(0, 1))
    turn = yaw.view(2, 7) - yaw.view(2, 7)[:, :1]
    assert torch.allclose(turn, torch.tensor(offsets()) * math.pi / 180, atol=1e-5)
    assert torch.allclose(pitch.view(2, 7), pitch.view(2, 7)[:, :1], atol=1e-5)
    masks = people.mask(slice(0, 2), 0, "cpu")
    assert 0.2 < masks.mean() < 0.9  # a head fills about half of the picture
    assert people.image(slice(0, 2), 0, "cpu")[(masks == 0).expand(-1, 3, -1, -1)].mean() > 0.9  # on white
    met = people.depth.float()[people.depth > 0]
    assert met.min() > 2.0 and met.max() < 3.5
