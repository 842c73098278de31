import contextlib
import importlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

import my3dgen.tune
from my3dgen.anchors import Anchors
from my3dgen.errors import PriorMismatchError, UserError
from my3dgen.evaluate.metrics import psnr
from my3dgen.lora import new_adapter
from my3dgen.personalize import (
    FULL_RATE,
    PersonalizeConfig,
    finetune,
    personalize,
    personalize_many,
    with_merged_steps,
)
from my3dgen.rank_allocation import components
from my3dgen.targets import targets_of
from my3dgen.tune import loss_of_step, photos_of_people, photos_of_step, tune

my3dgen_personalize = importlib.import_module("my3dgen.personalize")  # the package's name is the function

QUICK = PersonalizeConfig(steps=12, warm=2, rate=0.01, window=None, samples=8, perceptual=0.05, merged=1)


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


def test_latents_refined_late_stay_until_then(tiny_prior, truth, stranger, monkeypatch):
    """And latents in W+ move layer by layer."""
    ws = truth.ws + 0.01 * torch.randn(truth.ws.shape, generator=torch.Generator().manual_seed(3))
    plus, config = replace(truth, ws=ws), replace(QUICK, steps=12, refine=0.01, refine_share=0.25)
    seen = {}
    real = my3dgen.tune.warm_then_linear

    def noted(step, *others):
        seen[step] = moves[0].detach().clone()
        return real(step, *others)

    moves = []
    real_tune = my3dgen_personalize.tune

    def spied(generator, adapter, leaves, *others, **named):
        moves.extend(leaf for name, leaf in leaves.items() if name.startswith("latent."))
        return real_tune(generator, adapter, leaves, *others, **named)

    monkeypatch.setattr("my3dgen.tune.warm_then_linear", noted)
    monkeypatch.setattr(my3dgen_personalize, "tune", spied)
    person = personalize(tiny_prior, stranger, plus, config)
    assert all((seen[step] == 0).all() for step in range(10))
    moved = person.anchors.ws - plus.ws
    assert 0 < (moved.abs().amax((1, 2)) > 0).sum() <= 3  # three steps, one photo each
    assert (moved[moved.abs().amax((1, 2)) > 0].std(1) > 0).any()


BUDGET = replace(QUICK, steps=24, rank=3, extras=("bias",), explore=0.5, rate=0.01)


def test_a_budget_is_kept_and_spent(tiny_prior, truth, stranger, few_looks):
    person = personalize(tiny_prior, stranger, truth, replace(BUDGET, budget=6000))
    assert 5500 < person.adapter.parameter_count <= 6000
    assert person.card.made["budget"] == 6000
    whole = new_adapter(tiny_prior.generator, 3, 1.0, extras=("bias",))
    assert sum(person.card.made["components"].values()) < sum(components(whole).values())
    assert fit_of(tiny_prior, truth, stranger, person.adapter) > fit_of(tiny_prior, truth, stranger) + 2


@pytest.fixture
def few_looks(monkeypatch):
    monkeypatch.setattr(my3dgen_personalize, "LOOKS", 1)


@pytest.mark.parametrize("stop", [10, 12, 20])
def test_work_on_a_budget_goes_on_to_the_same_result(
    tiny_prior, truth, stranger, tmp_path, monkeypatch, few_looks, stop
):
    """Stopped while exploring, right after the cut, and later."""
    config, path = replace(BUDGET, budget=6000, refine=0.01, perceptual=0.0), tmp_path / "me.training"
    whole = personalize(tiny_prior, stranger, truth, config)
    saving, saved = my3dgen.tune.save_checkpoint, []

    def save_then_stop(path, belongs, tensors, state):
        saving(path, belongs, tensors, state)
        saved.append(state["steps"])
        if state["steps"] >= stop:
            raise Stop

    monkeypatch.setattr("my3dgen.tune.KEEP_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr("my3dgen.tune.save_checkpoint", save_then_stop)
        patch.setattr("my3dgen.tune.READ_EVERY", 5)
        with pytest.raises(Stop):
            personalize(tiny_prior, stranger, truth, config, unfinished=path)
    again = personalize(tiny_prior, stranger, truth, config, unfinished=path)
    assert again.adapter.tensors.keys() == whole.adapter.tensors.keys()
    assert all(torch.equal(t, again.adapter.tensors[name]) for name, t in whole.adapter.tensors.items())
    assert torch.equal(again.anchors.ws, whole.anchors.ws)


def test_only_what_is_chosen_trains(tiny_prior, truth, stranger):
    config = replace(QUICK, steps=3, ranks={"torgb": 0, "affine": 2}, extras=("const",))
    person = personalize(tiny_prior, stranger, truth, config)
    names = person.adapter.tensors
    assert not any(".torgb.weight" in n or "bias" in n or "noise" in n for n in names)
    assert "backbone.synthesis.b4.const.delta" in names and person.adapter.rank == 2
    assert person.card.made["ranks"] == {"torgb": 0, "affine": 2}
    assert person.card.made["extras"] == ["const"]


def test_losses_are_read_a_few_steps_at_a_time(tiny_prior, truth, stranger, monkeypatch):
    read = []
    real = my3dgen.tune._read

    def noted(losses, *others):
        read.append(len(losses))
        return real(losses, *others)

    monkeypatch.setattr("my3dgen.tune._read", noted)
    personalize(tiny_prior, stranger, truth, replace(QUICK, steps=23, perceptual=0.0))
    assert read == [10, 10, 3]


def test_a_checkpoint_never_holds_what_diverged(tiny_prior, truth, stranger, tmp_path, monkeypatch):
    """A gradient that is not finite spoils the weights while the step's loss still is a number."""
    path, config = tmp_path / "me.training", replace(QUICK, steps=30, perceptual=0.0)
    step = torch.optim.Adam.step
    count = []

    def spoil(self, *arguments):
        count.append(1)
        if len(count) == 20:
            self.param_groups[0]["params"][0].grad.fill_(torch.nan)
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", spoil)
    monkeypatch.setattr("my3dgen.tune.KEEP_SECONDS", 0)
    with pytest.raises(UserError, match="diverged at step 20"):
        personalize(tiny_prior, stranger, truth, config, unfinished=path)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["state"]) == {"steps": 10}
        assert all(file.get_tensor(name).isfinite().all() for name in file.keys())  # noqa: SIM118


def test_every_photo_is_seen_once_a_turn():
    numbers = torch.cat([photos_of_step(step, 5, 2, seed=3) for step in range(10)]).tolist()
    turns = [numbers[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(turn) == list(range(5)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1
    assert numbers != torch.cat([photos_of_step(step, 5, 2, seed=4) for step in range(10)]).tolist()


def test_photos_of_several_people_are_those_each_has_alone():
    both = photos_of_people(7, [5, 3], 2, seed=1)
    alone = photos_of_step(7, 5, 2, 1), 5 + photos_of_step(7, 3, 2, 1)
    assert torch.equal(both, torch.cat(alone))


@pytest.mark.parametrize(("window", "batch"), [(None, 1), (12, 2)])
def test_a_step_follows_the_gradient_of_its_loss(tiny_prior, truth, stranger, monkeypatch, window, batch):
    """Of the adapter and of the latents, which reach the step as numbers without a past."""
    config = replace(QUICK, steps=1, window=window, batch=batch)
    targets = targets_of(stranger, tiny_prior.config)
    adapter = new_adapter(tiny_prior.generator, 1, 1.0)
    moves = torch.zeros_like(truth.ws).requires_grad_()

    def latents(numbers):
        return (truth.ws + moves)[numbers]

    arguments = (tiny_prior.generator, adapter), (targets, latents, config, None)
    leaves = {**adapter.tensors, "moves": moves}
    loss = loss_of_step(*arguments[0], *arguments[1], 0)
    expected = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    assert expected[-1] is not None and expected[-1].abs().sum() > 0
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)
    losses = tune(*arguments[0], leaves, *arguments[1], belongs="test")
    assert losses == [[pytest.approx(loss.item())]]
    for (name, leaf), gradient in zip(leaves.items(), expected, strict=True):
        assert (leaf.grad is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(leaf.grad, gradient, msg=name)


def test_several_people_at_once_become_what_they_become_alone(tiny_prior, truth, stranger, monkeypatch):
    """In float32, but for single numbers whose gradient is nothing but rounding, of which Adam makes much."""
    monkeypatch.setattr("my3dgen.comparison.mixed_precision", lambda device: contextlib.nullcontext())
    few = replace(
        stranger, images=-stranger.images[:4], cameras=stranger.cameras[:4], masks=None, names=tuple("wxyz")
    )
    anchors = truth, Anchors(truth.ws[:4], truth.cameras[:4])
    config = replace(QUICK, steps=8, batch=2, window=12, rate=2e-3, refine=1e-3)
    together = personalize_many(tiny_prior, [stranger, few], anchors, config)
    for album, own, person in zip((stranger, few), anchors, together, strict=True):
        alone = personalize(tiny_prior, album, own, config)
        assert person.card.made["photos"] == len(album)
        assert person.card.made["last_loss"] == pytest.approx(alone.card.made["last_loss"], rel=1e-3)
        assert fit_of(tiny_prior, own, album, person.adapter) == pytest.approx(
            fit_of(tiny_prior, own, album, alone.adapter), abs=0.02
        )
        torch.testing.assert_close(person.anchors.ws, alone.anchors.ws, atol=1e-4, rtol=1e-4)
        start = new_adapter(tiny_prior.generator, 1, 1.0).tensors
        for name, tensor in alone.adapter.tensors.items():
            moved = (tensor - start[name]).abs().mean()
            assert (person.adapter.tensors[name] - tensor).abs().mean() <= 0.01 * moved, name
    first, second = (person.adapter.tensors for person in together)
    assert not all(torch.allclose(first[name], second[name], atol=1e-3) for name in first)


def test_terms_that_compare_faces_make_people_one_after_the_other(tiny_prior, truth, stranger):
    config = replace(QUICK, steps=2, preserve=1.0, preserve_every=1, perceptual=0.0)
    (person,) = personalize_many(tiny_prior, [stranger], [truth], config)
    alone = personalize(tiny_prior, stranger, truth, config)
    assert all(torch.equal(t, person.adapter.tensors[n]) for n, t in alone.adapter.tensors.items())
    assert personalize_many(tiny_prior, [], [], QUICK) == []


def test_steps_are_merged_only_where_that_is_as_good():
    plain = PersonalizeConfig(steps=362, warm=20, rate=1e-3, merged=4)
    merged = with_merged_steps(plain)
    assert (merged.steps, merged.batch, merged.warm) == (91, 4, 5)
    assert merged.rate == pytest.approx(2e-3)
    assert with_merged_steps(merged) == merged
    for field in (
        {"preserve": 1.0},
        {"identity": 1.0},
        {"symmetry": 1.0},
        {"refine": 0.01},
        {"budget": 9000},
    ):
        assert with_merged_steps(replace(plain, **field)) == replace(plain, **field, merged=1)


def test_refusals(tiny_prior, truth, stranger):
    with pytest.raises(UserError, match="5 anchors for 6 photos"):
        personalize(tiny_prior, stranger, Anchors(truth.ws[:5], truth.cameras[:5]), QUICK)
    with pytest.raises(PriorMismatchError, match="invert the album with this prior"):
        personalize(tiny_prior, stranger, Anchors(truth.ws[:, :4], truth.cameras), QUICK)
    with pytest.raises(UserError, match="diverged at step"):
        personalize(tiny_prior, stranger, truth, replace(QUICK, rate=1e30))
