"""Components by importance under a budget."""

import pytest
import torch

from my3dgen.config import PRESETS
from my3dgen.errors import UserError
from my3dgen.lora import merge, new_adapter
from my3dgen.prior.generator import Generator
from my3dgen.rank_allocation import (
    components,
    importances,
    in_singular_basis,
    reduced,
    room_for_components,
    within_budget,
)

CONV, AFFINE = "backbone.synthesis.b8.conv0.weight", "backbone.synthesis.b8.conv0.affine.weight"


@pytest.fixture(scope="module")
def generator():
    return Generator(PRESETS["tiny"]).requires_grad_(False)


@pytest.fixture
def adapter(generator):
    adapter = new_adapter(generator, 3, 2.0).detached()
    rng = torch.Generator().manual_seed(2)
    for tensor in adapter.tensors.values():
        tensor += 0.1 * torch.randn(tensor.shape, generator=rng)
    return adapter


def test_turning_changes_no_weight(generator, adapter):
    turned = in_singular_basis(adapter)
    before, after = merge(generator, adapter), merge(generator, turned)
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    a, b = turned.tensors[f"{CONV}.lora_A"], turned.tensors[f"{CONV}.lora_B"]
    lengths = b.norm(dim=0)
    torch.testing.assert_close(b.T @ b, lengths.square().diag(), atol=1e-4, rtol=0)
    assert (lengths.diff() <= 1e-6).all()
    mean_square = adapter.tensors[f"{CONV}.lora_A"].square().sum(1).mean()
    torch.testing.assert_close(a @ a.T, mean_square * torch.eye(len(a)), atol=1e-4, rtol=0)


def test_more_components_than_outputs_are_padded(generator, adapter):
    """The super-resolution's toRGB has three outputs."""
    path = "superresolution.block1.torgb.weight"
    wide = new_adapter(generator, 5, 1.0).detached()
    for tensor in wide.tensors.values():
        tensor.normal_(generator=torch.Generator().manual_seed(1))
    turned = in_singular_basis(wide)
    assert turned.tensors[f"{path}.lora_B"].shape == (3, 5)
    assert (turned.tensors[f"{path}.lora_B"][:, 3:] == 0).all()
    product, again = (x.tensors[f"{path}.lora_B"] @ x.tensors[f"{path}.lora_A"] for x in (wide, turned))
    torch.testing.assert_close(again, product, atol=1e-4, rtol=1e-4)


def test_importance_is_the_mean_square_derivative_by_a_factor(generator, adapter):
    """Against finite differences: a component's column of B is lengthened and shortened."""
    adapter.requires_grad_()
    weights = [torch.randn(32, 8 * 36, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]

    def loss(step):
        b, a = adapter.tensors[f"{CONV}.lora_B"], adapter.tensors[f"{CONV}.lora_A"]
        return (b @ a * weights[step]).square().mean()

    scores = importances(adapter, loss, [0, 1])
    b = adapter.tensors[f"{CONV}.lora_B"]
    expected = torch.zeros(len(scores[CONV]))
    for i in range(len(expected)):
        for step in (0, 1):
            values = []
            for factor in (1.01, 0.99):
                kept = b.detach().clone()
                with torch.no_grad():
                    b[:, i] *= factor
                    values.append(loss(step).item())
                    b.copy_(kept)
            expected[i] += ((values[0] - values[1]) / 0.02) ** 2 / 2
    torch.testing.assert_close(scores[CONV], expected, rtol=0.02, atol=1e-8)
    assert (scores[AFFINE] == 0).all()  # this loss does not feel it


def test_the_best_for_their_numbers_are_kept_within_the_budget(adapter):
    left, costs = room_for_components(adapter, adapter.parameter_count)
    extras = sum(t.numel() for n, t in adapter.tensors.items() if n.endswith("delta"))
    assert costs[CONV] == 32 * 9 + 32 and left == adapter.parameter_count - extras
    scores = {path: torch.zeros(len(adapter.tensors[f"{path}.lora_A"])) for path in adapter.ranks}
    scores[CONV][4], scores[CONV][1], scores[AFFINE][2] = 9.0, 8.0, 7.0
    everything = within_budget(adapter, scores, adapter.parameter_count)
    assert everything == {AFFINE: [2], CONV: [1, 4]}  # nothing without importance
    # the affine's component has 64 numbers: far better for its size
    assert within_budget(adapter, scores, extras + 64) == {AFFINE: [2]}
    assert within_budget(adapter, scores, extras + 64 + 320) == {AFFINE: [2], CONV: [4]}
    with pytest.raises(UserError, match=f"leaves no room .* beside the {extras} numbers"):
        within_budget(adapter, scores, extras + 10)


def test_what_is_kept_keeps_its_effect(generator, adapter):
    turned = in_singular_basis(adapter)
    cut = reduced(turned, {CONV: [0, 2], AFFINE: [1]})
    assert cut.ranks == {CONV: 2 / 3, AFFINE: 1} and components(cut) == {"b8": 2, "affine": 1}
    assert all(t.is_leaf and t.requires_grad for t in cut.tensors.values())
    b, a = (turned.tensors[f"{CONV}.lora_{x}"].clone() for x in "BA")
    b[:, [1, 3, 4, 5, 6, 7, 8]] = 0
    expected = generator.get_parameter(CONV) + turned.scale(CONV) * (b @ a).view(32, 32, 3, 3)
    merged = merge(generator, cut.detached())
    torch.testing.assert_close(merged.get_parameter(CONV), expected)
    assert torch.equal(
        merged.get_parameter("backbone.synthesis.b16.conv0.weight"),
        generator.get_parameter("backbone.synthesis.b16.conv0.weight"),
    )
