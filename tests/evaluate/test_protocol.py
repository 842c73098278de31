import copy
import importlib
from dataclasses import replace

import pytest
import torch

from my3dgen.camera_refine import rotations
from my3dgen.cameras import join_label, split_label
from my3dgen.evaluate.methods import Found, Method, personalised, prior_alone, times, tuned_in_full
from my3dgen.evaluate.metrics import Judge
from my3dgen.evaluate.protocol import held_out, novel_views, select
from my3dgen.evaluate.true_views import Moment
from my3dgen.invert import FEW, QUALITIES
from my3dgen.lora import new_adapter
from my3dgen.person import new_person
from my3dgen.tune import TuneConfig

invert_module, place_module = map(importlib.import_module, ("my3dgen.invert", "my3dgen.place"))
JUDGE = Judge(lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)), lambda images, _: images.flatten(1)[:, :128])


@pytest.fixture
def perfect(tiny_prior, truth):
    """A method that knows the answer; what it was asked is kept."""
    asked = []

    def find(album, correct_cameras):
        asked.append((album.names, correct_cameras))
        rows = [int(name[-5], 36) - 10 for name in album.names]
        return Found(truth.ws[rows], truth.cameras[rows])

    return Method("prior", "W", tiny_prior.generator, None, find), asked


def test_a_perfect_inversion_scores_perfectly(perfect, photos):
    method, asked = perfect
    made = held_out(method, photos, JUDGE)
    assert [score.psnr for score in made.scores] == pytest.approx([100.0] * 6, abs=1)
    assert [score.identity for score in made.scores] == pytest.approx([1.0] * 6, abs=1e-3)
    assert asked == [(photos.names, True)]


def test_a_wrong_inversion_scores_worse(perfect, photos):
    method, _ = perfect
    mixed = select(photos, photos.names[::-1])
    mixed = type(photos)(photos.images, photos.cameras, photos.masks, mixed.names)
    assert max(score.psnr for score in held_out(method, mixed, JUDGE).scores) < 60


def test_unseen_views_come_from_the_source_alone(perfect, photos, truth, tiny_prior):
    method, asked = perfect
    with torch.no_grad():
        images = tiny_prior.generator.synthesis(truth.ws[2:3].expand(6, -1, -1), truth.cameras).image.clamp(
            -1, 1
        )
    views = type(photos)(images, photos.cameras, photos.masks, photos.names)
    # the true cameras are known in a world of their own; what counts is how they lie to one another
    moment = Moment(views, (-2, -1, 0, 1, 2, 3), elsewhere(truth.cameras), torch.zeros(6, 64, 64))
    made = novel_views(method, [moment] * FEW, JUDGE)
    assert asked == [(("0.c.png", "1.c.png", "2.c.png"), True), (("0.c.png",), True)]
    assert len(made) == FEW
    torch.testing.assert_close(made[0].cameras, truth.cameras, atol=1e-5, rtol=0)
    assert min(score.psnr for one in made for score in one.scores) > 90


def elsewhere(cameras):
    """The same cameras in a world that is turned and moved."""
    pose, lens = split_label(cameras)
    world = torch.eye(4)
    world[:3, :3] = rotations(torch.tensor([[0.3, -0.2, 0.5]]))[0]
    world[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    return join_label(world @ pose, lens)


@pytest.fixture
def person(tiny_prior, truth):
    return new_person(tiny_prior, new_adapter(tiny_prior.generator, 1, 1.0), truth)


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("count", [1, FEW])
def test_every_method_spends_the_same_steps_on_a_photo(
    count, quality, tiny_prior, photos, person, monkeypatch
):
    spent, real = [], invert_module.fit

    def fit(generator, space, targets, photos, stages, *others, together=None, **named):
        if together is None:  # else a common start, which is not counted
            spent[-1] += [stage.steps for stage in stages]
        few = [replace(stage, steps=1) for stage in stages]
        return real(generator, space, targets, photos, few, *others, together=together, **named)

    for module in (invert_module, place_module):
        monkeypatch.setattr(module, "fit", fit)
    album = select(photos, photos.names[:count])
    config = QUALITIES[quality]
    for method in (prior_alone(tiny_prior, config), personalised(tiny_prior, person, config)):
        spent.append([])
        method.invert(album, True)
    assert len(spent) == 2 and spent[0] == spent[1] and min(spent[0]) > 0


def test_times_changes_the_steps_a_photo_alone():
    config = QUALITIES["standard"]
    tripled = times(config, 3)
    assert (tripled.coarse_steps, tripled.fine_steps) == (3 * config.coarse_steps, 3 * config.fine_steps)
    assert times(tripled, 1) == tripled and tripled.common_steps == config.common_steps


def test_a_fully_tuned_generator_is_drawn_as_it_is(tiny_prior, truth, photos):
    from my3dgen.evaluate.protocol import reproduce

    tuned = copy.deepcopy(tiny_prior.generator)
    with torch.no_grad():
        tuned.superresolution.block1.torgb.bias += 0.3
    method = tuned_in_full(tiny_prior, tuned, truth, QUALITIES["draft"])
    assert method.name == "full"
    images = reproduce(method.generator, method.adapter, truth.ws, truth.cameras)
    with torch.no_grad():
        expected = tuned.synthesis(truth.ws, truth.cameras).image.clamp(-1, 1)
    torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)
    assert (images - photos.images).abs().mean() > 0.02


def test_all_weights_bend_around_each_photo_from_where_they_were_tuned(tiny_prior, truth, photos):
    tuned = copy.deepcopy(tiny_prior.generator)
    with torch.no_grad():
        tuned.superresolution.block1.torgb.bias += 0.3
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    tuning = TuneConfig(steps=2, rate=1e-3, window=None, perceptual=0.0)
    method = tuned_in_full(tiny_prior, tuned, truth, QUALITIES["draft"], "full-pti", tuning)
    assert method.name == "full-pti"
    found = method.invert(select(photos, photos.names[:2]), False)
    (first, _), (second, _) = method.models(found)
    for own in (first, second):
        apart = max(float((value - before[name]).abs().max()) for name, value in own.state_dict().items())
        assert 0 < apart < 0.1 and all(p.grad is None and not p.requires_grad for p in own.parameters())
    weight = "backbone.synthesis.b8.conv1.weight"
    assert not torch.equal(first.state_dict()[weight], second.state_dict()[weight])
    assert all(torch.equal(value, before[name]) for name, value in tuned.state_dict().items())
