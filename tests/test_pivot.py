import contextlib
from dataclasses import replace

import pytest
import torch

from my3dgen.errors import UserError
from my3dgen.evaluate.metrics import psnr
from my3dgen.lora import new_adapter
from my3dgen.pivot import tune_all_on_photo, tune_on_photos
from my3dgen.tune import TuneConfig

QUICK = TuneConfig(steps=12, warm=2, rate=0.01, window=None, samples=6, perceptual=0.0)


@pytest.fixture
def other(photos):
    """Photos that no latent here fits."""
    return replace(photos, images=photos.images.roll(1, 0))


def drawn(generator, placed, photo, adapter=None):
    """A photo's rendering."""
    ws, camera = placed.ws[photo : photo + 1], placed.cameras[photo : photo + 1]
    with torch.no_grad():
        return generator.synthesis(ws, camera, adapter).image


def test_tuning_brings_its_photo_nearer_and_keeps_the_person(tiny_prior, other, truth):
    adapter = new_adapter(tiny_prior.generator, 1, 1.0)
    before = adapter.detached()
    tuned = tune_on_photos(tiny_prior, adapter, other, truth, QUICK)
    assert len(tuned) == len(other)

    def fit(adapter, photo):
        image = drawn(tiny_prior.generator, truth, photo, adapter)
        return psnr(image, other.images[photo : photo + 1]).item()

    for photo, own in enumerate(tuned):
        assert fit(own, photo) > fit(adapter, photo) + 2
        assert not any(t.requires_grad for t in own.tensors.values())
    assert all(torch.equal(t, before.tensors[name]) for name, t in adapter.tensors.items())


@pytest.mark.parametrize("window", [None, 12])
def test_photos_tuned_together_become_what_each_becomes_alone(
    tiny_prior, other, truth, monkeypatch, capsys, window
):
    """In float32: pictures within half a grey level of 8 bits. Adam makes much of gradients that are nothing
    but rounding, so the adapters' numbers are compared by their mean, as in `test_personalize`."""
    monkeypatch.setattr("my3dgen.comparison.mixed_precision", lambda device: contextlib.nullcontext())
    config = replace(QUICK, steps=8, rate=2e-3, perceptual=0.03, window=window)
    start = new_adapter(tiny_prior.generator, 1, 1.0).detached()
    alone = tune_on_photos(tiny_prior, start, other, truth, config)
    assert "tuning on the photo" in capsys.readouterr().err  # a CPU tunes one after the other
    monkeypatch.setattr("my3dgen.pivot.photos_together", lambda prior: 4)
    together = tune_on_photos(tiny_prior, start, other, truth, config)
    progress = capsys.readouterr().err
    assert "tuning on 4 photos" in progress and "tuning on 2 photos" in progress
    for photo, (one, same) in enumerate(zip(alone, together, strict=True)):
        before, expected, found = (
            drawn(tiny_prior.generator, truth, photo, own) for own in (start, one, same)
        )
        assert (before - expected).abs().max() > 0.1
        torch.testing.assert_close(found, expected, atol=1 / 255, rtol=0)
        moved, off = (
            sum(float((t - own.tensors[n]).abs().sum()) for n, t in one.tensors.items())
            for own in (start, same)
        )
        assert off <= 0.01 * moved


def test_one_photo_that_diverges_is_told(tiny_prior, other, truth, monkeypatch):
    monkeypatch.setattr("my3dgen.pivot.photos_together", lambda prior: 4)
    other.images[1] = torch.nan
    with pytest.raises(UserError, match="diverged at step 0"):
        tune_on_photos(tiny_prior, new_adapter(tiny_prior.generator, 1, 1.0), other, truth, QUICK)


def test_tuning_all_weights_on_a_photo_leaves_the_prior_alone(tiny_prior, other, truth):
    before = {name: t.clone() for name, t in tiny_prior.generator.state_dict().items()}
    own = tune_all_on_photo(tiny_prior, other, truth, 2, replace(QUICK, rate=1e-3))

    def fit(generator):
        return psnr(drawn(generator, truth, 2), other.images[2:3]).item()

    assert fit(own) > fit(tiny_prior.generator) + 1
    assert all(torch.equal(t, before[name]) for name, t in tiny_prior.generator.state_dict().items())
    changed = [n for n, t in own.state_dict().items() if not torch.equal(t, before[n])]
    assert changed and not any(name.startswith("backbone.mapping.") for name in changed)
    assert not any(p.requires_grad for p in own.parameters())
