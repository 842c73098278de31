import sys

import pytest

from my3dgen.config import PRESETS
from my3dgen.lora import new_adapter
from my3dgen.personalize import PersonalizeConfig, finetune, personalize
from my3dgen.pivot import tune_on_photos
from my3dgen.prior.generator import Generator
from my3dgen.rates import FACTORS, adapter_rates
from my3dgen.tune import TuneConfig

FEW = {"steps": 1, "warm": 1, "window": None, "samples": 6, "perceptual": 0.0}


def test_every_tensor_of_an_adapter_has_the_rate_of_its_kind():
    names = new_adapter(Generator(PRESETS["tiny"]), 1, 1.0).tensors
    rates = adapter_rates(names)
    assert rates.keys() == names.keys() and set(rates.values()) == set(FACTORS.values())
    backbone, head = "backbone.synthesis.b8.", "superresolution.block0."
    assert (
        rates[f"{backbone}conv1.weight.lora_A"]
        == rates[f"{head}conv0.weight.lora_B"]
        == FACTORS["convolution"]
    )
    assert rates[f"{backbone}conv1.affine.weight.lora_B"] == FACTORS["affine"]
    assert rates[f"{backbone}torgb.weight.lora_A"] == FACTORS["torgb"]
    assert rates[f"{backbone}torgb.affine.weight.lora_A"] == FACTORS["affine"]
    for part in ("conv1.bias", "conv1.noise_strength", "conv1.affine.bias", "torgb.bias"):
        assert rates[f"{backbone}{part}.delta"] == FACTORS["extras"]
    # convolutions move most for their size is one, extras least for they move all pixels
    assert FACTORS["convolution"] > FACTORS["affine"] >= FACTORS["extras"] > 0


@pytest.mark.parametrize("how", ["personalize", "pivot", "full"])
def test_adapters_learn_by_them_and_all_weights_do_not(tiny_prior, photos, truth, monkeypatch, how):
    asked = {}
    module = sys.modules[f"my3dgen.{'pivot' if how == 'pivot' else 'personalize'}"]
    plain = module.tune
    monkeypatch.setattr(module, "tune", lambda *a, **k: asked.update(k) or plain(*a, **k))
    if how == "pivot":
        start = new_adapter(tiny_prior.generator, 1, 1.0).detached()
        (made,) = tune_on_photos(tiny_prior, start, photos, truth, TuneConfig(**FEW))[:1]
        assert asked["rates"] == adapter_rates(made.tensors)
    elif how == "full":
        finetune(tiny_prior, photos, truth, PersonalizeConfig(**FEW))
        assert not asked["rates"]
    else:
        person = personalize(tiny_prior, photos, truth, PersonalizeConfig(**FEW, refine=1e-3))
        latents = {f"latent.{i}": 0.5 for i in range(len(photos))}
        assert asked["rates"] == adapter_rates(person.adapter.tensors) | latents
