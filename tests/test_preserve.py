"""Other faces of the prior stay as they are."""

from dataclasses import replace

import torch

from my3dgen.lora import new_adapter
from my3dgen.personalize import PersonalizeConfig, personalize
from my3dgen.preserve import preservation, strangers

CONFIG = PersonalizeConfig(
    steps=32, warm=2, rate=0.01, window=None, samples=8, perceptual=0.0, preserve=1.0, preserve_every=2
)
NONE = torch.arange(1)  # no photo has a part in it


def changed(prior, size: float):
    adapter = new_adapter(prior.generator, 1, 1.0)
    for name, tensor in adapter.tensors.items():
        if name.endswith(("lora_B", "bias.delta")):
            tensor.data.normal_(0, size, generator=torch.Generator().manual_seed(1))
    return adapter


def test_off_by_default(tiny_prior):
    generator = tiny_prior.generator
    assert preservation(generator, generator, None, PersonalizeConfig()) is None


def test_the_term_is_nought_for_the_prior_itself_and_grows_with_the_change(tiny_prior):
    generator = tiny_prior.generator
    values = []
    for size in (0.0, 0.05, 0.2):
        adapter = changed(tiny_prior, size)
        term = preservation(generator, generator, adapter, CONFIG)
        assert term is not None
        value = term(0, NONE)
        assert (term(0, NONE) == value).all()
        assert term(1, NONE) == 0
        assert term(2, NONE) != value or size == 0  # another face, another camera
        values.append(value.item())
    # with and without gradients the same picture is computed in different ways, and rounding moves samples
    assert values[0] < 1e-3 * values[1] < 1e-3 * values[2]
    value.backward()
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in adapter.tensors.values())


def test_the_term_brings_strangers_back(tiny_prior, truth, monkeypatch):
    """Seen by cameras that it does not use."""
    monkeypatch.setattr("my3dgen.preserve.FACES", 4)
    generator, adapter = tiny_prior.generator, changed(tiny_prior, 0.05)
    term = preservation(generator, generator, adapter, replace(CONFIG, preserve_every=1))
    assert term is not None
    ws = strangers(generator, 4, seed=0).expand(-1, tiny_prior.config.num_ws, -1)

    def drift() -> float:
        with torch.no_grad():
            pair = [generator.synthesis(ws, truth.cameras[:4], a).image_raw for a in (None, adapter)]
        return (pair[0] - pair[1]).square().mean().item()

    before = drift()
    optimizer = torch.optim.Adam(adapter.tensors.values(), lr=0.003)
    for step in range(120):
        optimizer.zero_grad()
        term(step, NONE).backward()
        optimizer.step()
    assert drift() < 0.1 * before


def test_training_takes_it_along(tiny_prior, truth, photos):
    config = replace(CONFIG, steps=3)
    kept, free = (
        personalize(tiny_prior, photos, truth, replace(config, preserve=weight)) for weight in (5.0, 0.0)
    )
    assert (kept.card.made["preserve"], kept.card.made["preserve_every"]) == (5.0, 2)
    assert any(not torch.equal(t, free.adapter.tensors[n]) for n, t in kept.adapter.tensors.items())
