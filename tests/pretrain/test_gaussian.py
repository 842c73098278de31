"""The closed-form mapping draws from the Gaussian it was given."""

from dataclasses import replace

import pytest
import torch

from my3dgen.config import PRESETS
from my3dgen.pretrain.gaussian import SHRINK, LatentGaussian, fit_mapping, moments
from my3dgen.prior.generator import Generator
from my3dgen.prior.mapping import MappingNetwork

CONFIG = replace(PRESETS["tiny"], z_dim=24, w_dim=24, mapping_layers=4, c_gen_conditioning_zero=True)


def test_draws_have_the_mean_and_covariance_of_the_latents() -> None:
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(24, 24, generator=rng) / 5
    latents = torch.randn(4000, 24, generator=rng) @ mixing.T + torch.randn(24, generator=rng)
    mapping = MappingNetwork(CONFIG)
    fit_mapping(mapping, latents.mean(0), torch.cov(latents.T))
    z = torch.randn(20000, 24, generator=rng)
    w = mapping(z, None).detach()
    wanted = torch.cov(latents.T)
    wanted = (1 - SHRINK) * wanted + SHRINK * torch.diag(wanted.diagonal())
    torch.testing.assert_close(w.mean(0), latents.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(w.T), wanted, atol=0.05, rtol=0.05)
    torch.testing.assert_close(mapping.w_avg, latents.mean(0))


def test_it_is_linear_in_normalised_z() -> None:
    mapping = MappingNetwork(CONFIG)
    latents = torch.randn(300, 24, generator=torch.Generator().manual_seed(1))
    fit_mapping(mapping, latents.mean(0), torch.cov(latents.T))
    z = torch.randn(64, 24, generator=torch.Generator().manual_seed(2))
    opposite = mapping(z, None) + mapping(-z, None)
    torch.testing.assert_close(opposite, (2 * mapping.w_avg).expand(64, -1), atol=1e-4, rtol=0)


def test_other_layouts_are_refused() -> None:
    generator = Generator(replace(CONFIG, mapping_layers=2))
    with pytest.raises(ValueError, match="four layers"):
        fit_mapping(generator.backbone.mapping, torch.zeros(24), torch.eye(24))


def test_it_follows_latents_batch_by_batch() -> None:
    rng = torch.Generator().manual_seed(3)
    mixing, centre = torch.randn(24, 24, generator=rng) / 5, torch.randn(24, generator=rng)
    known = LatentGaussian(24, torch.device("cpu"))
    for step in range(300):
        latents = torch.randn(64, 24, generator=rng) @ mixing.T + centre
        known.follow(*moments(latents), decay=min(0.99, 1 - 1 / (step + 1)))
    factor = known.factor
    known.refresh()
    assert known.factor is factor  # captured graphs hold on to it
    drawn = known.draw(torch.randn(20000, 24, generator=rng))
    torch.testing.assert_close(drawn.mean(0), centre, atol=0.15, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), mixing @ mixing.T, atol=0.25, rtol=0)
