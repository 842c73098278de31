from dataclasses import replace
from types import SimpleNamespace

import torch

from my3dgen.lora import new_adapter
from my3dgen.personalize import PersonalizeConfig
from my3dgen.regularize import EVERY, identity_and_symmetry
from my3dgen.targets import targets_of


def terms(prior, photos, truth, adapter, **weights):
    targets = targets_of(photos, prior.config)
    config = PersonalizeConfig(**weights)
    return identity_and_symmetry(prior.generator, adapter, targets, lambda n: truth.ws[n], config)


def test_off_by_default(tiny_prior, photos, truth):
    assert terms(tiny_prior, photos, truth, None) is None


def test_identity_is_nought_for_the_photo_itself_and_drives_the_adapter(tiny_prior, photos, truth):
    adapter = new_adapter(tiny_prior.generator, 1, 1.0)
    both = torch.arange(2)
    loss = terms(tiny_prior, photos, truth, adapter, identity=1.0)
    assert loss is not None
    assert loss(0, both).item() < 1e-3
    assert loss(1, both).item() == 0  # only every fourth step
    other = replace(photos, images=photos.images.roll(1, 0))
    loss = terms(tiny_prior, other, truth, adapter, identity=1.0)
    assert loss is not None
    value = loss(EVERY, both)
    value.backward()
    assert value.item() > 1e-3
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in adapter.tensors.values())


def test_symmetry_compares_mirrored_views_and_drives_the_adapter(tiny_prior, photos, truth):
    adapter = new_adapter(tiny_prior.generator, 1, 1.0)
    loss = terms(tiny_prior, photos, truth, adapter, symmetry=1.0)
    assert loss is not None
    value = loss(0, torch.arange(2))
    assert 0 < value.item() < 1.0
    assert value.item() == loss(0, torch.arange(2)).item()
    value.backward()
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in adapter.tensors.values())


def test_a_mirrored_view_of_a_symmetric_face_is_the_view(tiny_prior, photos, truth, monkeypatch):
    """Pictures that mirror when their camera does are no asymmetry."""
    across = torch.linspace(-1, 1, 64)

    def symmetric(ws, cameras, adapter):
        place = cameras[:, 3, None, None, None]  # cam2world's x
        blob = torch.exp(-8 * (across - place).square()) + across.view(-1, 1) * 0.3
        return SimpleNamespace(image=blob.expand(len(cameras), 3, 64, 64))

    monkeypatch.setattr(type(tiny_prior.generator), "synthesis", lambda self, *a: symmetric(*a))
    loss = terms(tiny_prior, photos, truth, None, symmetry=1.0)
    assert loss is not None
    assert loss(EVERY, torch.arange(2)).item() < 1e-4
