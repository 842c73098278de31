import importlib

import pytest
import torch

from my3dgen.comparison import compared, differences, kept_features, rows
from my3dgen.perceptual import load_perceptual
from my3dgen.targets import targets_of
from my3dgen.tune import TuneConfig

comparison = importlib.import_module("my3dgen.comparison")
WHOLE = TuneConfig(window=None, samples=8, perceptual=0.05)


def test_kept_features_change_no_loss(tiny_prior, photos, truth, monkeypatch):
    generator, targets = tiny_prior.generator, targets_of(photos, tiny_prior.config)
    perceptual, numbers = load_perceptual("squeeze-feat"), torch.tensor([4, 1, 1])
    losses = []
    for room in (False, True):
        monkeypatch.setattr(comparison, "_keeps", lambda targets, room=room: room)
        kept = kept_features(generator, targets, WHOLE, perceptual)
        assert bool(kept[0]) == bool(kept[1]) == room
        latents = lambda chosen: truth.ws[chosen]  # noqa: E731
        spans, both = compared(generator, targets, latents, WHOLE, 3, numbers)
        assert spans is None
        with torch.no_grad():
            losses.append(differences(generator, None, both, spans, WHOLE, perceptual, kept))
    torch.testing.assert_close(losses[0], losses[1], atol=0, rtol=1e-5)


def test_features_are_kept_of_whole_pictures_alone_and_within_bounds(tiny_prior, photos, monkeypatch):
    generator, targets = tiny_prior.generator, targets_of(photos, tiny_prior.config)
    perceptual = load_perceptual("squeeze-feat")
    assert kept_features(generator, targets, WHOLE, perceptual) == ((), ())  # a CPU
    monkeypatch.setattr(comparison, "_keeps", lambda targets: True)
    windows = TuneConfig(window=8, samples=8)
    assert kept_features(generator, targets, windows, perceptual) == ((), ())
    assert kept_features(generator, targets, WHOLE, None) == ((), ())
    monkeypatch.setattr(comparison, "MOST_KEPT", 1000)
    assert kept_features(generator, targets, WHOLE, perceptual) == ((), ())


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_rows_keep_the_memory_order(order):
    pictures = torch.randn(5, 4, 3, 2).contiguous(memory_format=order)
    chosen = rows(pictures, torch.tensor([3, 0, 3]))
    assert torch.equal(chosen, torch.stack([pictures[3], pictures[0], pictures[3]]))
    assert chosen.is_contiguous(memory_format=order)
