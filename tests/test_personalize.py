from dataclasses import replace

import pytest
import torch

from my3dgen.anchors import Anchors
from my3dgen.errors import PriorMismatchError, UserError
from my3dgen.evaluate.metrics import psnr
from my3dgen.lora import new_adapter
from my3dgen.personalize import FULL_RATE, PersonalizeConfig, finetune, personalize
from my3dgen.tune import photos_of_step

QUICK = PersonalizeConfig(steps=12, warm=2, rate=0.02, window=None, samples=8, perceptual=0.05)


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def stranger(tiny_prior, truth, photos):
    """Photos by a changed generator: the prior with the right latents cannot explain them."""
    adapter = new_adapter(tiny_prior.generator, 1, 1.0, torch.Generator().manual_seed(7))
    rng = torch.Generator().manual_seed(8)
    for tensor in adapter.tensors.values():
        tensor.data += 0.05 * torch.randn(tensor.shape, generator=rng)
    with torch.no_grad():
        images = tiny_prior.generator.synthesis(truth.ws, truth.cameras, adapter).image.clamp(-1, 1)
    return replace(photos, images=images)


def fit_of(prior, anchors, album, adapter=None, generator=None):
    with torch.no_grad():
        made = (generator or prior.generator).synthesis(anchors.ws, anchors.cameras, adapter).image
    return psnr(made, album.images).mean().item()


def test_a_person_shows_the_photos_and_the_prior_stays(tiny_prior, truth, stranger):
    state = {name: t.clone() for name, t in tiny_prior.generator.state_dict().items()}
    person = personalize(tiny_prior, stranger, truth, QUICK)
    assert fit_of(tiny_prior, truth, stranger, person.adapter) > fit_of(tiny_prior, truth, stranger) + 2
    assert torch.equal(person.anchors.ws, truth.ws)
    assert person.card.made["method"] == "lora"
    assert person.card.made["photos"] == 6
    assert all(torch.equal(t, state[name]) for name, t in tiny_prior.generator.state_dict().items())
    assert not any(p.requires_grad for p in tiny_prior.generator.parameters())


def test_windows_teach_too(tiny_prior, truth, stranger):
    person = personalize(
        tiny_prior, stranger, truth, replace(QUICK, steps=40, rate=0.005, window=12, perceptual=0.0)
    )
    assert fit_of(tiny_prior, truth, stranger, person.adapter) > fit_of(tiny_prior, truth, stranger) + 1


def test_latents_can_be_refined_along(tiny_prior, truth, stranger):
    person = personalize(tiny_prior, stranger, truth, replace(QUICK, steps=6, refine=0.01))
    moved = (person.anchors.ws - truth.ws).abs()
    assert (moved.amax((1, 2)) > 0).all()
    torch.testing.assert_close(person.anchors.ws[:, 0], person.anchors.ws[:, -1])  # still in W


def test_the_seed_decides(tiny_prior, truth, stranger):
    config = replace(QUICK, steps=2, perceptual=0.0)
    a, b, c = (
        personalize(tiny_prior, stranger, truth, replace(config, seed=seed)).adapter.tensors
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_full_tuning_changes_all_but_the_mapping(tiny_prior, truth, stranger):
    tuned = finetune(tiny_prior, stranger, truth, replace(QUICK, rate=10 * FULL_RATE))
    before = fit_of(tiny_prior, truth, stranger)
    assert fit_of(tiny_prior, truth, stranger, generator=tuned.generator) > before + 1
    pairs = zip(tuned.generator.named_parameters(), tiny_prior.generator.parameters(), strict=True)
    for (name, after), start in pairs:
        untrained = name.startswith("backbone.mapping") or ("superresolution" in name and "noise" in name)
        assert torch.equal(after, start) == untrained, name
    assert not any(p.requires_grad for p in tuned.generator.parameters())


@pytest.mark.parametrize("method", [personalize, finetune])
def test_stopped_work_goes_on_to_the_same_result(tiny_prior, truth, stranger, tmp_path, monkeypatch, method):
    config = replace(QUICK, steps=13, window=12, refine=0.01, rate=1e-3)
    path = tmp_path / "me.training"

    def result(**options):
        made = method(tiny_prior, stranger, truth, config, **options)
        return made.adapter.tensors if method is personalize else made.generator.state_dict()

    whole = result()
    from my3dgen.tune import save_checkpoint

    def save_then_stop(path, belongs, tensors, state):
        save_checkpoint(path, belongs, tensors, state)
        if state["steps"] == 10:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("my3dgen.tune.save_checkpoint", save_then_stop)
        with pytest.raises(Stop):
            result(unfinished=path)
    seen = []

    def noted(step, *arguments):
        seen.append(step)
        return photos_of_step(step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("my3dgen.tune.photos_of_step", noted)
        again = result(unfinished=path)
    assert seen == list(range(10, 13))
    assert all(torch.equal(t, again[name]) for name, t in whole.items())


def test_every_photo_is_seen_once_a_turn():
    numbers = torch.cat([photos_of_step(step, 5, 2, seed=3) for step in range(10)]).tolist()
    turns = [numbers[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(turn) == list(range(5)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1
    assert numbers != torch.cat([photos_of_step(step, 5, 2, seed=4) for step in range(10)]).tolist()


def test_refusals(tiny_prior, truth, stranger):
    with pytest.raises(UserError, match="5 anchors for 6 photos"):
        personalize(tiny_prior, stranger, Anchors(truth.ws[:5], truth.cameras[:5]), QUICK)
    with pytest.raises(PriorMismatchError, match="invert the album with this prior"):
        personalize(tiny_prior, stranger, Anchors(truth.ws[:, :4], truth.cameras), QUICK)
    with pytest.raises(UserError, match="diverged at step"):
        personalize(tiny_prior, stranger, truth, replace(QUICK, rate=1e30))
