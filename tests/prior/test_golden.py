"""The 30.6 M generator end to end against EG3D's numbers (EG3D spec 9, tests 1 and 3).

Weights are the synthetic ones the numbers were made with. Values agree to about 2e-5 on the CPU; the
bounds leave room for other convolution algorithms.
"""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from my3dgen.config import PRESETS
from my3dgen.prior.generator import Generator

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((GOLDEN_FOLDER / "eg3d-golden.json").read_text())
KEYS = json.loads((GOLDEN_FOLDER / "eg3d-ffhq512-128.keys.json").read_text())
CASE = GOLDEN["end_to_end"]


def _synthetic_weight(key: str, shape: tuple[int, ...]) -> Tensor:
    drawn = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape or None)
    value = torch.tensor(drawn, dtype=torch.float32)
    if key.startswith("backbone.mapping.fc") and key.endswith(".weight"):
        value *= 100
    if key.endswith(".bias"):
        value = value * 0.1 + (1 if key.endswith("affine.bias") else 0)
    if key.endswith(("noise_strength", "w_avg")):
        value *= 0.1
    if key == "decoder.net.2.weight":
        value[0] *= 30
    return value


@pytest.fixture(scope="module")
def generator() -> Generator:
    with torch.device("meta"):
        empty = Generator(PRESETS["ffhq512-128"])
    taps = torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0])] * 2) / 64
    state = {
        key: taps.clone() if key.endswith("resample_filter") else _synthetic_weight(key, tuple(value.shape))
        for key, value in empty.state_dict().items()
    }
    empty.load_state_dict(state, assign=True)
    return empty.requires_grad_(False)


@pytest.fixture(scope="module")
def latents(generator: Generator) -> Tensor:
    return generator.mapping(_z(), torch.tensor([CASE["cond_label"]]), psi=0.7, cutoff=14)


@pytest.fixture(scope="module")
def planes(generator: Generator, latents: Tensor) -> Tensor:
    return generator.planes(latents)


def _z() -> Tensor:
    return torch.tensor(np.random.RandomState(0).randn(1, 512), dtype=torch.float32)


def _close(value: Tensor, expected: list | float, bound: float) -> None:
    torch.testing.assert_close(value, torch.tensor(expected), atol=bound, rtol=0)


def test_keys_shapes_and_counts(generator: Generator) -> None:
    parameters = {name: list(p.shape) for name, p in generator.named_parameters()}
    buffers = {name: list(b.shape) for name, b in generator.named_buffers()}
    assert parameters == KEYS["params"]
    assert buffers == {key: shape for key, shape in KEYS["buffers"].items() if key != "dataset_label_std"}
    assert len(parameters) == 132 and len(buffers) == 44
    assert generator.parameter_count == 30_662_136
    for module, count in KEYS["counts"]["params_by_module"].items():
        assert sum(p.numel() for p in generator.get_submodule(module).parameters()) == count


@pytest.mark.parametrize("layout", ["8X", "4X", "2X"])
def test_counts_of_the_other_superresolutions(layout: str) -> None:
    size = {"8X": 512, "4X": 256, "2X": 128}[layout]
    with torch.device("meta"):
        other = Generator(replace(PRESETS["ffhq512-128"], superresolution=layout, img_resolution=size))
    assert sum(p.numel() for p in other.superresolution.parameters()) == 574_954
    assert other.parameter_count == 29_587_512


def test_mapping(generator: Generator, latents: Tensor) -> None:
    camera = torch.tensor([CASE["cond_label"]])
    full = generator.mapping(_z(), camera)
    _close(full[0, 0, :8], CASE["ws_psi1"]["first8"], 1e-5)
    _close(full.std(), CASE["ws_psi1"]["std"], 1e-5)
    _close(latents[0, 0, :8], CASE["ws_psi0.7"]["first8"], 1e-5)
    cut = generator.mapping(_z(), camera, psi=0.5, cutoff=3)
    _close(cut[0, 2, :4], CASE["ws_psi0.5_cutoff3"]["layer2_first4"], 1e-5)
    _close(cut[0, 3, :4], CASE["ws_psi0.5_cutoff3"]["layer3_first4"], 1e-5)


@pytest.mark.parametrize("noise", ["const", "none"])
def test_planes(generator: Generator, latents: Tensor, planes: Tensor, noise: str) -> None:
    found = (planes if noise == "const" else generator.planes(latents, noise="none")).flatten(1, 2)
    expected = CASE[f"planes_{noise}"]
    assert list(found.shape) == expected["shape"]
    _close(torch.stack([found[0, c, y, x] for c, y, x in expected["idx"]]), expected["val"], 1e-4)
    _close(found.mean(), expected["mean"], 1e-5)
    _close(found.std(), expected["std"], 1e-5)
    _close(found.min(), expected["min"], 1e-4)


def test_points(generator: Generator, planes: Tensor) -> None:
    colours, densities = generator.query(planes, torch.tensor([CASE["points"]["xyz"]]))
    _close(colours[0, :, :4], CASE["points"]["rgb_first4"], 1e-5)
    # the density row is multiplied by 30, and so are the planes' errors
    _close(densities[0, :, 0], CASE["points"]["sigma"], 5e-4)


@pytest.mark.parametrize("resolution", [32, 128])
def test_render(generator: Generator, latents: Tensor, planes: Tensor, resolution: int) -> None:
    camera = torch.tensor([CASE["label"]])
    rendered = generator.render(planes, camera, latents, resolution=resolution)
    expected = CASE[f"render_{resolution}"]
    for name, image in (("image", rendered.image), ("image_raw", rendered.image_raw)):
        places = expected[name]["idx_yx"]
        _close(torch.stack([image[0, :, y, x] for y, x in places]), expected[name]["rgb"], 1e-4)
        _close(image.mean(), expected[name]["mean"], 1e-5)
        _close(image.std(), expected[name]["std"], 1e-5)
    depth, case = rendered.depth, expected["image_depth"]
    places = expected["image_raw"]["idx_yx"]
    _close(torch.stack([depth[0, 0, y, x] for y, x in places]), case["val"], 1e-4)
    _close(depth.mean(), case["mean"], 1e-4)
    # the extremes are rays of opacity 3e-4, where EG3D's 1 - exp(-x) has few digits left
    _close(depth.max(), case["max"], 1e-3)
