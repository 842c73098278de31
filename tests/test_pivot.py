from dataclasses import replace

import torch

from my3dgen.evaluate.metrics import psnr
from my3dgen.lora import new_adapter
from my3dgen.personalize import PersonalizeConfig
from my3dgen.pivot import tune_all_on_photo, tune_on_photo


def test_tuning_brings_its_photo_nearer_and_keeps_the_person(tiny_prior, photos, truth):
    adapter = new_adapter(tiny_prior.generator, 1, 1.0)
    before = adapter.detached()
    other = replace(photos, images=photos.images.roll(1, 0))  # no latent here fits these
    config = PersonalizeConfig(steps=12, warm=2, rate=0.02, window=None, samples=6, perceptual=0.0)
    own = tune_on_photo(tiny_prior, adapter, other, truth, 2, config)

    def fit(adapter):
        with torch.no_grad():
            image = tiny_prior.generator.synthesis(truth.ws[2:3], truth.cameras[2:3], adapter).image
        return psnr(image, other.images[2:3]).item()

    assert fit(own) > fit(adapter) + 2
    assert all(torch.equal(t, before.tensors[name]) for name, t in adapter.tensors.items())


def test_tuning_all_weights_on_a_photo_leaves_the_prior_alone(tiny_prior, photos, truth):
    other = replace(photos, images=photos.images.roll(1, 0))
    config = PersonalizeConfig(steps=12, warm=2, rate=1e-3, window=None, samples=6, perceptual=0.0)
    before = {name: t.clone() for name, t in tiny_prior.generator.state_dict().items()}
    own = tune_all_on_photo(tiny_prior, other, truth, 2, config)

    def fit(generator):
        with torch.no_grad():
            image = generator.synthesis(truth.ws[2:3], truth.cameras[2:3]).image
        return psnr(image, other.images[2:3]).item()

    assert fit(own) > fit(tiny_prior.generator) + 1
    assert all(torch.equal(t, before[name]) for name, t in tiny_prior.generator.state_dict().items())
    changed = [n for n, t in own.state_dict().items() if not torch.equal(t, before[n])]
    assert changed and not any(name.startswith("backbone.mapping.") for name in changed)
    assert not any(p.requires_grad for p in own.parameters())
