"""The super-resolution head's resize and clamp against EG3D's numbers and formulas (EG3D spec 1.4, 1.14)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from my3dgen.config import PRESETS, PriorConfig
from my3dgen.ops.skip import add_skip
from my3dgen.prior import synthesis
from my3dgen.prior.adaptation import Adaptation
from my3dgen.prior.initialize import initialize
from my3dgen.prior.superres import Superresolution

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "eg3d-golden.json").read_text())["micro"]
RAMP = (torch.arange(64.0).reshape(1, 1, 8, 8) / 64) ** 2
SMALL = replace(PRESETS["tiny"], superresolution_input=4, img_resolution=8)


def _head(config: PriorConfig) -> Superresolution:
    head = Superresolution(config).requires_grad_(False)
    initialize(head, torch.Generator().manual_seed(0))
    return head


def _image(head: Superresolution, features: Tensor) -> Tensor:
    w = torch.ones(1, SMALL.w_dim)
    return head(features, w, Adaptation.of(None), None, torch.float32)


def _resized(config: PriorConfig) -> Tensor:
    """What the first block gets of a ramp twice as wide as its input."""
    seen: list[Tensor] = []
    head = _head(config)
    head.get_submodule("block0").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _image(head, RAMP.expand(1, config.render_features, 8, 8))
    return seen[0][0, 0]


def test_the_resize_is_low_pass_filtered() -> None:
    torch.testing.assert_close(
        _resized(SMALL), torch.tensor(GOLDEN["filtered_resizing_8to4_ramp"]), atol=1e-6, rtol=0
    )


def test_or_is_not() -> None:
    """Without the filter each pixel is the bilinear value at its centre, here the mean of four."""
    bare = _resized(replace(SMALL, superresolution_antialias=False))
    torch.testing.assert_close(bare, RAMP[0, 0].unflatten(0, (4, 2)).unflatten(2, (4, 2)).mean((1, 3)))


@pytest.mark.parametrize("clamp", [256.0, 3.0, None])
def test_every_layer_is_clamped(clamp: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Biases of +-1000 drive each layer beyond 256; without a clamp they get through."""
    head = _head(replace(SMALL, superresolution_clamp=clamp))
    for name, parameter in head.named_parameters():
        if name.endswith(("conv0.bias", "conv1.bias", "torgb.bias")):
            parameter[::2], parameter[1::2] = 1000.0, -6000.0
    outputs: dict[str, Tensor] = {}

    def added(image: Tensor | None, contribution: Tensor, bias: Tensor, bound: float | None, *, up: bool):
        outputs[f"torgb{contribution.shape[-1]}"] = add_skip(None, contribution, bias, bound, up=False)
        return add_skip(image, contribution, bias, bound, up=up)

    monkeypatch.setattr(synthesis, "add_skip", added)
    for name, module in head.named_modules():
        if name.endswith(("conv0", "conv1")):
            module.register_forward_hook(lambda *a, name=name: outputs.update({name: a[2]}))
    _image(head, RAMP.expand(1, SMALL.render_features, 8, 8))
    assert len(outputs) == 6
    for name, output in outputs.items():
        low, high = output.min().item(), output.max().item()
        assert (low, high) == (-clamp, clamp) if clamp else low < -256 and high > 256, name
