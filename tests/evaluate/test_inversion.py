import pytest
import torch

from my3dgen.errors import UserError
from my3dgen.evaluate.inversion import InversionRule, invert_wplus, strain
from my3dgen.evaluate.metrics import psnr
from my3dgen.latents import latent_statistics
from my3dgen.perceptual import load_perceptual


@pytest.fixture
def invert(tiny_prior, photos):
    """Inverts the toy photos from the mean latent; returns latents."""
    generator = tiny_prior.generator

    def run(steps, rows=slice(0, 3), generator=generator, perceptual=None, **rule):
        images = photos.images[rows]
        return invert_wplus(
            generator,
            images,
            photos.cameras[rows],
            torch.ones_like(images[:, :1]),
            generator.w_avg.expand(len(images), generator.config.num_ws, -1),
            steps,
            statistics=latent_statistics(generator),
            perceptual=perceptual,
            rule=InversionRule(**rule),
        )

    return run


def likeness(prior, photos, ws):
    rows = slice(0, len(ws))
    with torch.no_grad():
        made = prior.generator.synthesis(ws, photos.cameras[rows]).image
    return psnr(made, photos.images[rows])


def test_it_comes_nearer_to_the_photos(tiny_prior, photos, invert):
    before, after = (likeness(tiny_prior, photos, invert(steps)) for steps in (1, 60))
    assert (after > before + 3).all()


def test_the_perceptual_network_takes_part(invert):
    network = load_perceptual("squeeze-feat")
    assert not torch.allclose(invert(5, perceptual=network), invert(5), atol=1e-4)


def test_heads_do_not_influence_each_other(invert):
    # but for rounding, which Adam's first steps make as large as they are
    together, alone, start = invert(4)[1:2], invert(4, slice(1, 2)), invert(0, slice(1, 2))
    assert (together - alone).norm() < 0.05 * (alone - start).norm()


def test_holding_layers_together_does(tiny_prior, invert):
    def drift(ws):
        return (ws - ws.mean(1, keepdim=True)).square().mean()

    assert drift(invert(40, apart=1.0)) < 0.5 * drift(invert(40, apart=0.0))


def test_strain_of_known_latents(tiny_prior):
    generator, rule = tiny_prior.generator, InversionRule(stray=0.5, apart=0.25)
    statistics = latent_statistics(generator)
    moved = torch.full((1, 4, generator.config.w_dim), 2.0)
    same = torch.ones_like(moved)
    assert strain(same, moved, statistics, rule).item() == pytest.approx(0.5 * 4)
    # two layers at +d, two at -d with |d|^2 the prior's variance
    length = statistics.spread.square().sum().sqrt()
    apart = torch.zeros_like(moved)
    apart[:, :2, 0], apart[:, 2:, 0] = length, -length
    assert strain(apart, 0 * moved, statistics, rule).item() == pytest.approx(0.25)


def test_divergence_is_named(invert):
    with pytest.raises(UserError, match="diverged"):
        invert(3, stray=float("nan"))
