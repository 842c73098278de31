"""Captured steps, as far as they can be tested without a GPU: what they do on a CPU, and that what is to be
captured keeps to the device."""

import gc
import weakref
from dataclasses import dataclass, replace

import pytest
import torch
from on_device import OnTheDevice
from torch import Tensor

from my3dgen.comparison import compared, differences
from my3dgen.fit import Looks, Stage, Views
from my3dgen.graphs import CapturedKinds, CapturedStep, _copy, _tensors
from my3dgen.lora import new_adapter, stack
from my3dgen.perceptual import load_perceptual
from my3dgen.personalize import PersonalizeConfig
from my3dgen.targets import targets_of
from my3dgen.tune import _per_photo


@dataclass(frozen=True, eq=False)
class Pair:
    x: Tensor
    more: tuple[Tensor, ...] = ()


def test_the_mode_refuses_what_a_capture_would():
    for spoil in (
        lambda: torch.ones(3).sum().item(),
        lambda: torch.tensor([1.0]),
        lambda: torch.eye(2).nonzero(),
    ):
        with pytest.raises(AssertionError), OnTheDevice():
            spoil()


@pytest.mark.parametrize("window", [None, 12])
@pytest.mark.parametrize("people", [1, 2])
def test_steps_of_personalization_keep_to_the_device(tiny_prior, truth, photos, window, people):
    targets, perceptual = targets_of(photos, tiny_prior.config), load_perceptual("squeeze-feat")
    config = PersonalizeConfig(window=window, samples=8, batch=2)
    adapters = [new_adapter(tiny_prior.generator, 1, 1.0) for _ in range(people)]
    adapter = stack(adapters).detached().requires_grad_() if people > 1 else adapters[0]
    numbers = torch.arange(2 * people)
    spans, both = compared(
        tiny_prior.generator, targets, lambda numbers: truth.ws[numbers], config, 3, numbers
    )
    assert (spans is None) == (window is None)
    with OnTheDevice():
        ours = _per_photo(adapter, config.batch)
        loss = differences(tiny_prior.generator, ours, both, spans, config, perceptual)
        loss.unflatten(0, (people, -1)).mean(1).sum().backward()
    assert all(t.grad is not None for n, t in adapter.tensors.items() if n.endswith("lora_B"))


def test_steps_of_inversion_keep_to_the_device(tiny_prior, truth, photos):
    looks = Looks(tiny_prior.generator, None, load_perceptual("squeeze-feat"))
    targets, stage = targets_of(photos, tiny_prior.config), Stage(3, 16, 8, 0.1)
    views = Views(truth.ws[:2], truth.cameras[:2], *looks.photos(targets, [0, 1], stage)(torch.arange(2)))
    with OnTheDevice():
        out = looks(stage, views, cameras_move=True, partly=False)
    assert out["ws"].shape == truth.ws[:2].shape and out["cameras"].abs().sum() > 0


def test_a_photo_s_features_are_seen_once(tiny_prior, truth, photos):
    looks = Looks(tiny_prior.generator, None, load_perceptual("squeeze-feat"))
    targets, stage = targets_of(photos, tiny_prior.config), Stage(3, 16, 8, 0.1)
    views = Views(truth.ws[:2], truth.cameras[:2], *looks.photos(targets, [0, 1], stage)(torch.arange(2)))
    assert views.features
    kept, anew = (
        looks(stage, some, cameras_move=False, partly=False)["losses"]
        for some in (views, replace(views, features=()))
    )
    torch.testing.assert_close(kept, anew)


def test_gradients_are_those_of_the_last_batch():
    weight = torch.ones(2, requires_grad=True)

    def step(batch):
        loss = (weight * batch.x).sum()
        loss.backward()
        return {"loss": loss.detach()}

    run = CapturedStep(step, [weight], capture=False)
    for x in (torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])):
        assert run(Pair(x))["loss"] == x.sum()
        assert weight.grad is not None
        assert torch.equal(weight.grad, x)


def test_a_kind_reaches_its_step_and_is_counted():
    run = CapturedKinds(lambda kind, batch: {"x": batch.x * kind}, [], capture=False)
    assert [run(kind, Pair(torch.tensor(2.0)))["x"].item() for kind in (3, 4, 3)] == [6, 8, 6]
    assert run.seen == {3: 2, 4: 1} and not run.captured


def test_only_kinds_that_come_often_are_captured(monkeypatch):
    """With a replay that is only told, as there is no GPU here."""
    told = []
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")

    def called(self, batch):
        told.append((self.capture, self.pool))
        return {}

    monkeypatch.setattr(CapturedStep, "__call__", called)
    run = CapturedKinds(lambda kind, batch: {}, [], capture=True)
    for kind in (1, 1, 1, 1, 2, 1, 1):
        run(kind, Pair(torch.zeros(1)))
    assert [capture for capture, _ in told] == [False] * 5 + [True] * 2
    assert {pool for _, pool in told} == {"pool"} and list(run.captured) == [1]


def test_captured_steps_go_with_their_kinds():
    """At once, as their graphs hold memory that nobody else can use."""
    run = CapturedKinds(lambda kind, batch: {"x": batch.x}, [], capture=False)
    run.captured[1] = run._step_of(1, capture=False)
    step = weakref.ref(run.captured[1])
    gc.disable()
    try:
        del run
        assert step() is None
    finally:
        gc.enable()


def test_a_copy_of_a_batch_shares_nothing():
    batch = Pair(torch.zeros(1), (torch.ones(2), torch.ones(3)))
    copy = _copy(batch)
    for mine, theirs in zip(_tensors(batch), _tensors(copy), strict=True):
        assert torch.equal(mine, theirs) and mine.data_ptr() != theirs.data_ptr()
    assert len(_tensors(copy)) == 3
