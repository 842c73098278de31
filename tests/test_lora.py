"""Adapters: counts, exactness, batches, merging (EG3D spec 5.3, 5.4; acceptance test 5)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from my3dgen import lora
from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.errors import PriorMismatchError
from my3dgen.lora import Adapter
from my3dgen.prior.generator import Generator
from my3dgen.ranks import PLACED

GOLDEN = json.loads((Path(__file__).parent / "golden" / "eg3d-golden.json").read_text())


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(PRESETS["tiny"]).requires_grad_(False)


@pytest.fixture(scope="module")
def latents(generator: Generator) -> Tensor:
    return generator.mapping(torch.randn(3, 32, generator=_seeded(0)), None)


@pytest.fixture(scope="module")
def ffhq() -> Generator:
    with torch.device("meta"):
        return Generator(PRESETS["ffhq512-128"])


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _cameras() -> Tensor:
    return camera_from_angles(torch.tensor([0.0, 0.3, -0.5]), 0.1)


def _person(generator: Generator, seed: int, rank: int = 1, alpha: float = 1.0, **chosen) -> Adapter:
    """An adapter that changes everything chosen a little."""
    adapter = lora.new_adapter(generator, rank, alpha, _seeded(seed), **chosen).requires_grad_(False)
    for name, tensor in adapter.tensors.items():
        if not name.endswith(".lora_A"):
            tensor += 0.3 * torch.randn(tensor.shape, generator=_seeded(seed + 100))
    return adapter


@pytest.mark.parametrize("rank", [1, 2, 4, 8])
def test_counts(ffhq: Generator, rank: int) -> None:
    expected = GOLDEN["counts"]["my3dgen_lora_by_rank"]["lora_only = 219174*r, trainable = 219174*r + 24791"]
    shapes = lora.adapter_shapes(ffhq, rank)
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    low_rank = sum(size for name, size in sizes.items() if ".lora_" in name)
    assert [low_rank, sum(sizes.values())] == expected[str(rank)]


def test_placed_ranks_take_no_more_numbers_than_rank_1(ffhq: Generator) -> None:
    with torch.device("meta"):
        mini = Generator(PRESETS["mini"])
    for generator in (ffhq, mini):
        shapes = (lora.adapter_shapes(generator, 1, ranks=ranks) for ranks in ({}, PLACED))
        even, placed = (sum(torch.Size(shape).numel() for shape in each.values()) for each in shapes)
        assert 0.9 * even < placed <= even


def test_shapes_are_those_of_official_files(ffhq: Generator) -> None:
    """Every published key has its counterpart of the same shape; wrappers only add path parts."""
    wrappers = (".synthesis_block", ".synthesis_layer", ".to_rgb_layer", ".superresolution_module")
    found = {}
    for key, shape in GOLDEN["my3dgen_official_key_names_r1"].items():
        if not key.endswith((".lora_A", ".lora_B")):
            continue
        path = key.replace("backbone.synthesis.synthesis.", "backbone.synthesis.")
        for wrapper in wrappers:
            path = path.replace(wrapper, "")
        module, _, leaf = path.rpartition(".")
        found[f"{module}.weight.{leaf}"] = tuple(shape)
    ours = {name: shape for name, shape in lora.adapter_shapes(ffhq, 1).items() if ".lora_" in name}
    assert found == ours
    assert len(ours) == 2 * (17 + 26 + 9)


def test_a_new_adapter_changes_no_bit(generator: Generator, latents: Tensor) -> None:
    adapter = lora.new_adapter(generator, 2, 2.0, _seeded(0))
    lora.check_adapter(generator, adapter)
    bare = generator.synthesis(latents, _cameras())
    with torch.no_grad():
        adapted = generator.synthesis(latents, _cameras(), adapter)
    for name in ("image", "image_raw", "depth", "opacity"):
        assert torch.equal(getattr(bare, name), getattr(adapted, name))


def test_initial_factors_have_the_right_spread(generator: Generator) -> None:
    adapter = lora.new_adapter(generator, 4, 4.0, _seeded(0))
    a = adapter.tensors["backbone.synthesis.b8.conv0.weight.lora_A"]
    bound = a.shape[1] ** -0.5
    assert bound * 0.9 < a.abs().max() <= bound
    assert adapter.tensors["backbone.synthesis.b8.conv0.weight.lora_B"].abs().max() == 0
    again = lora.new_adapter(generator, 4, 4.0, _seeded(0))
    assert all(torch.equal(adapter.tensors[name], again.tensors[name]) for name in again.tensors)
    with pytest.raises(ValueError, match="rank 0"):
        lora.new_adapter(generator, 0, 1.0)


@pytest.mark.parametrize(("rank", "alpha"), [(1, 1.0), (4, 2.0)])
def test_merged_equals_passed(generator: Generator, latents: Tensor, rank: int, alpha: float) -> None:
    person = _person(generator, 1, rank, alpha)
    passed = generator.synthesis(latents, _cameras(), person)
    bare = generator.synthesis(latents, _cameras())
    merged = lora.merge(generator, person)
    weights = merged.synthesis(latents, _cameras())
    assert (passed.image - bare.image).abs().mean() > 0.05
    torch.testing.assert_close(weights.image, passed.image, atol=2e-5, rtol=0)
    torch.testing.assert_close(weights.image_raw, passed.image_raw, atol=2e-5, rtol=0)
    back = lora.unmerge(merged, person)
    for one, other in zip(back.parameters(), generator.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_every_group_of_layers_has_a_rank_of_its_own(ffhq: Generator) -> None:
    """The numbers of EG3D spec 5.4, group by group."""
    ones = {"backbone": 171_648, "superresolution": 20_448, "affine": 23_072, "torgb": 4_006}
    others = {"const": 8_192, "bias": 6_144 + 9_760 + 678, "noise": 17}

    def count(**choice) -> int:
        shapes = lora.adapter_shapes(ffhq, 1, **choice)
        return sum(torch.Size(shape).numel() for shape in shapes.values())

    for group, size in ones.items():
        assert count(ranks={group: 3}) - count() == 2 * size
        assert count() - count(ranks={group: 0}) == size
    for extra, size in others.items():
        assert count(extras=(extra,), ranks=dict.fromkeys(ones, 0)) == size
    wider = lora.adapter_shapes(ffhq, 1, ranks={"backbone": 0, "b64": 2})
    convolutions = [n for n in wider if n.endswith("lora_A") and "backbone" in n and "conv" in n]
    assert [n for n in convolutions if "affine" not in n] == [
        f"backbone.synthesis.b64.conv{i}.weight.lora_A" for i in (0, 1)
    ]


def test_each_layer_is_scaled_by_its_own_rank(generator: Generator) -> None:
    """Twice the components, each half as strong: two copies of a change are that change."""
    one, two = _person(generator, 1, 1, 3.0), _person(generator, 2, 1, 3.0)
    for name in ("backbone.synthesis.b8.conv0.weight", "backbone.synthesis.b8.conv0.affine.weight"):
        for end, axis in (("lora_A", 0), ("lora_B", 1)):
            factor = one.tensors[f"{name}.{end}"]
            two.tensors[f"{name}.{end}"] = torch.cat([factor, factor], axis)
        assert (two.scale(name), one.scale(name), two.ranks[name]) == (1.5, 3.0, 2)
        weights = [lora.merge(generator, adapter).get_parameter(name) for adapter in (one, two)]
        torch.testing.assert_close(weights[0], weights[1])
    assert (two.rank, one.rank) == (2, 1)


def test_nothing_to_train_is_refused(generator: Generator) -> None:
    none = dict.fromkeys(("backbone", "superresolution", "affine", "torgb"), 0)
    with pytest.raises(ValueError, match="nothing would be trained"):
        lora.new_adapter(generator, 1, 1.0, ranks=none, extras=())
    assert lora.new_adapter(generator, 1, 1.0, ranks=none).rank == 0
    with pytest.raises(ValueError, match="'torgb' is outside 0 to 64"):
        lora.new_adapter(generator, 1, 1.0, ranks={"torgb": 65})


def test_people_with_different_layers_share_a_batch(generator: Generator, latents: Tensor) -> None:
    people = [
        _person(generator, 1),
        _person(generator, 2, 2, 5.0, ranks={"affine": 0, "b16": 1}, extras=()),
        _person(generator, 3, 1, 1.0, ranks={"torgb": 4, "superresolution": 0}, extras=("bias",)),
    ]
    stacked = lora.stack(people)
    lora.check_adapter(generator, stacked)
    together = generator.synthesis(latents, _cameras(), stacked)
    for i, person in enumerate(people):
        alone = generator.synthesis(latents[i : i + 1], _cameras()[i : i + 1], person)
        torch.testing.assert_close(together.image[i], alone.image[0], atol=2e-5, rtol=0)


def test_different_people_share_a_batch(generator: Generator, latents: Tensor) -> None:
    """Each gives what it gives alone, up to the rounding of batched products (2e-5 on images)."""
    people = [_person(generator, 1), _person(generator, 2, 2, 1.0), _person(generator, 3)]
    together = generator.synthesis(latents, _cameras(), lora.stack(people))
    for i, person in enumerate(people):
        alone = generator.synthesis(latents[i : i + 1], _cameras()[i : i + 1], person)
        torch.testing.assert_close(together.image[i], alone.image[0], atol=2e-5, rtol=0)
        torch.testing.assert_close(together.image_raw[i], alone.image_raw[0], atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match="3 entries for a batch of 2"):
        generator.planes(latents[:2], lora.stack(people))


def test_stack_and_unstack(generator: Generator) -> None:
    people = [_person(generator, seed) for seed in (1, 2)]
    stacked = lora.stack(people)
    lora.check_adapter(generator, stacked)
    assert stacked.batch == 2 and people[0].batch is None
    for person, entry in zip(people, lora.unstack(stacked), strict=True):
        assert all(torch.equal(person.tensors[name], entry.tensors[name]) for name in person.tensors)
    for refused in (lambda: lora.stack([stacked]), lambda: lora.stack([])):
        with pytest.raises(ValueError, match="at least one"):
            refused()
    with pytest.raises(ValueError, match="unstack"):
        lora.merge(generator, stacked)
    narrow = Generator(replace(PRESETS["tiny"], channel_max=16))
    with pytest.raises(ValueError, match="of the same generator"):
        lora.stack([people[0], _person(narrow, 1, rank=2)])


def test_gradient_reaches_the_adapter_alone(generator: Generator, latents: Tensor) -> None:
    adapter = lora.new_adapter(generator, 1, 1.0, _seeded(0))
    for name, tensor in adapter.tensors.items():
        if name.endswith(".lora_B"):
            tensor.data.fill_(0.01)  # otherwise A has no gradient yet
    rendered = generator.synthesis(latents, _cameras(), adapter)
    (rendered.image.square().mean() + rendered.image_raw.square().mean()).backward()
    silent = {name for name, tensor in adapter.tensors.items() if tensor.grad is None}
    # the super-resolution's noise is off, so its strengths are never used
    assert silent == {
        f"superresolution.block{i}.conv{j}.noise_strength.delta" for i in (0, 1) for j in (0, 1)
    }
    assert all(parameter.grad is None for parameter in generator.parameters())
    moved = sum(t.numel() for t in lora.trainable_parameters(adapter)) - len(silent)
    assert moved == sum(t.grad.numel() for t in adapter.tensors.values() if t.grad is not None)


def test_an_adapter_of_another_prior_is_named(generator: Generator) -> None:
    person = _person(generator, 1)
    name = "backbone.synthesis.b4.conv1.weight.lora_A"
    person.tensors[name] = person.tensors[name][:, :-1]
    with pytest.raises(PriorMismatchError, match=name):
        lora.check_adapter(generator, person)
    del person.tensors[name]
    with pytest.raises(PriorMismatchError, match="lacks"):
        lora.check_adapter(generator, person)


def test_moving_copying_and_switching_gradients(generator: Generator) -> None:
    adapter = lora.new_adapter(generator, 1, 1.0)
    half = adapter.detached().to(dtype=torch.float16)
    assert all(t.dtype == torch.float16 and not t.requires_grad for t in half.tensors.values())
    assert all(t.is_leaf and t.requires_grad for t in lora.trainable_parameters(adapter))
    assert not any(t.requires_grad for t in adapter.requires_grad_(False).tensors.values())
    assert len(lora.lora_parameters(adapter)) < len(lora.trainable_parameters(adapter))
    assert adapter.parameter_count == sum(t.numel() for t in lora.trainable_parameters(adapter))
