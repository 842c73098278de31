"""One toy person for all tests: a tiny prior that draws something, and photos of it with known latents."""

import importlib
from dataclasses import replace

import pytest
import torch

from my3dgen.anchors import Anchors
from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.faces.album import Album
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior, load_prior, write_prior


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory) -> Prior:
    """Renders in milliseconds; its plain weights give soft coloured clouds that move with the camera."""
    folder = tmp_path_factory.mktemp("priors") / "tiny"
    config = replace(PRESETS["tiny"], depth_resolution=8, depth_resolution_importance=8)
    generator = Generator(config, torch.Generator().manual_seed(1))
    with torch.no_grad():  # as in a trained prior, the picture is the raw one with a little added
        for block in (generator.superresolution.block0, generator.superresolution.block1):
            block.torgb.weight *= 0.02
        generator.decoder.net[2].weight *= 8  # and shows more than mist
        generator.decoder.net[2].bias[0] += 8
    write_prior(folder, config, generator.state_dict(), "A toy.")
    return load_prior(folder)


@pytest.fixture(scope="session")
def truth(tiny_prior) -> Anchors:
    """Latents of six appearances of one person: a common latent, each a little away from it."""
    rng = torch.Generator().manual_seed(5)
    config = tiny_prior.config
    z = torch.randn(7, config.z_dim, generator=rng)
    w = tiny_prior.generator.mapping(z, None)
    ws = w[:1] + 0.3 * (w[1:] - w[:1])
    return Anchors(ws, camera_from_angles(torch.linspace(-0.4, 0.4, 6), 0.05), tuple("abcdef"))


@pytest.fixture(scope="session")
def photos(tiny_prior, truth) -> Album:
    """Renderings of `truth`."""
    with torch.no_grad():
        images = tiny_prior.generator.synthesis(truth.ws, truth.cameras).image.clamp(-1, 1)
    names = tuple(f"{name}.png" for name in truth.names or ())
    return Album(images, truth.cameras, torch.ones_like(images[:, :1]), names)


@pytest.fixture
def few_steps(monkeypatch):
    """Inversion and personalization do the work of hundreds of steps in a few."""
    # by name: `my3dgen.invert` and `my3dgen.personalize` are the functions
    invert, place, personalize = (
        importlib.import_module(f"my3dgen.{name}") for name in ("invert", "place", "personalize")
    )
    real_tune, real_stages = personalize.tune, invert.stages_of

    def tune(generator, adapter, leaves, targets, latents, config, perceptual, **others):
        few = replace(config, steps=3)
        return real_tune(generator, adapter, leaves, targets, latents, few, perceptual, **others)

    def stages_of(*arguments):
        return [replace(stage, steps=1) for stage in real_stages(*arguments)]

    monkeypatch.setattr(personalize, "tune", tune)
    for module in (invert, place):
        monkeypatch.setattr(module, "stages_of", stages_of)
