"""A toy prior with weights that make a visible blob, and a person with five anchors on it."""

from dataclasses import replace

import pytest
import torch

from my3dgen.anchors import Anchors
from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.lora import new_adapter
from my3dgen.person import Person, new_person
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior, load_prior, write_prior


@pytest.fixture(scope="session")
def prior(tmp_path_factory) -> Prior:
    folder = tmp_path_factory.mktemp("priors") / "toy"
    config = PRESETS["tiny"]
    generator = Generator(config, torch.Generator().manual_seed(1))
    write_prior(folder, config, generator.state_dict(), "A toy.")
    direction = torch.randn(config.w_dim, generator=torch.Generator().manual_seed(2))
    return replace(load_prior(folder), directions={"smile": direction, "blink": -direction})


@pytest.fixture(scope="session")
def person(prior) -> Person:
    rng = torch.Generator().manual_seed(3)
    w = torch.randn(5, prior.config.w_dim, generator=rng)
    ws = w[:, None].expand(-1, prior.config.num_ws, -1).contiguous()
    cameras = camera_from_angles(torch.linspace(-0.5, 0.5, 5), torch.linspace(0.2, -0.1, 5))
    adapter = new_adapter(prior.generator, 1, 1.0, rng)
    for tensor in adapter.tensors.values():
        tensor.data += 0.05 * torch.randn(tensor.shape, generator=rng)
    return new_person(prior, adapter, Anchors(ws, cameras))
