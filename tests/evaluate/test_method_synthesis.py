import pytest
import torch

from my3dgen.anchors import Anchors
from my3dgen.evaluate.method_synthesis import between, diversity, embeddings, nearest_photo, synthesise
from my3dgen.evaluate.methods import Method
from my3dgen.evaluate.metrics import Judge


@pytest.fixture
def judge():
    return Judge(
        lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)),
        lambda images, _: images.mean(1).flatten(1)[:, :128],
    )


@pytest.fixture
def method(tiny_prior):
    return Method(
        "lora", "alpha-space", tiny_prior.generator, None, lambda album, correct: pytest.fail("inverts")
    )


def test_the_nearest_photo_counts():
    photos = torch.eye(3, 128)
    identity, cosine = nearest_photo(torch.stack([photos[2], 2 * photos[0]]), photos)
    assert identity.tolist() == pytest.approx([1.0, 1 - 1 / 1.2])
    assert cosine.tolist() == pytest.approx([1.0, 1.0])


def test_diversity_is_the_mean_over_pairs():
    images = torch.stack([torch.full((3, 4, 4), x) for x in (0.0, 0.0, 0.6)])
    distance = lambda a, b: (a - b).abs().mean(dim=(1, 2, 3))  # noqa: E731
    assert diversity(images, distance, torch.Generator()) == pytest.approx(0.4)


def test_samples_of_one_anchor_are_all_the_same(method, judge, truth, photos, tiny_prior):
    known = embeddings(judge, photos, tiny_prior.config, torch.device("cpu"))
    alone = Anchors(truth.ws[:1], truth.cameras[:1])
    drawn = {
        len(anchors): synthesise(method, anchors, known, judge, count=4, yaw=0, seed=0)
        for anchors in (alone, truth)
    }
    assert drawn[1].figures["diversity"] == pytest.approx(0, abs=1e-6)
    assert drawn[6].figures["diversity"] > 1e-3
    assert drawn[6].images.shape == (4, *photos.images.shape[1:])
    again = synthesise(method, truth, known, judge, count=4, yaw=0, seed=0)
    assert torch.equal(again.images, drawn[6].images)


def test_a_way_between_anchors_is_near_to_the_photos_at_its_ends(method, judge, truth, photos, tiny_prior):
    frontal = Anchors(truth.ws, truth.cameras)
    way = between(method, frontal, torch.zeros(1, 128), judge, pairs=1, steps=5, seed=0)
    assert way is not None and len(way.images) == 5
    # measured against its own first picture, the way starts at 1 and gets worse
    known = judge.embed(way.images[:1], torch.zeros(1, 25))
    way = between(method, frontal, known, judge, pairs=1, steps=5, seed=0)
    assert way is not None and way.figures["least"] < way.figures["mean"] < 1
    assert (
        between(method, Anchors(truth.ws[:1], truth.cameras[:1]), known, judge, pairs=1, steps=5, seed=0)
        is None
    )
