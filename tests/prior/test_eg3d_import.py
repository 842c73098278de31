import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import eg3d_files
import pytest
import torch
from eg3d_files import SMALL, Persistent, fake_modules, generator_object, wrapped_name, write_snapshot

from my3dgen.config import PRESETS
from my3dgen.errors import FileFormatError, UnsafePickleError, UserError
from my3dgen.lora import merge, new_adapter
from my3dgen.prior.checkpoint_file import read_checkpoint
from my3dgen.prior.eg3d_config import derive_config
from my3dgen.prior.eg3d_import import check_shapes, chosen_config, import_checkpoint
from my3dgen.prior.generator import Generator
from my3dgen.prior.inert_tensors import StorageData, TensorData, rebuild_tensor
from my3dgen.prior.snapshot import Snapshot, plain_name, take_snapshot
from my3dgen.prior.store import generator_shapes, load_prior

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MY3DGEN_HOME", str(tmp_path / "home"))


@pytest.fixture
def fakes(monkeypatch):
    for name, module in fake_modules().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    generator = Generator(SMALL).eval().requires_grad_(False)
    generator.w_avg.normal_()
    for layer in generator.modules():
        if hasattr(layer, "noise_strength"):
            layer.noise_strength.fill_(0.1)
    return generator


def same_state(first, second):
    first, second = first.state_dict(), second.state_dict()
    return set(first) == set(second) and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_training_pickle_becomes_a_prior(tmp_path, monkeypatch, fakes, generator, protocol):
    state = generator.state_dict() | {"dataset_label_std": torch.rand(25)}
    path = write_snapshot(tmp_path / "net.pkl", generator_object(SMALL, state), protocol=protocol)
    for name in fake_modules():
        monkeypatch.delitem(sys.modules, name)  # reading needs none of them
    folder = import_checkpoint(path, "net")
    prior = load_prior("net")
    assert prior.folder == folder and prior.config == SMALL
    assert same_state(prior.generator, generator)
    card = (folder / "card.md").read_text()
    assert "non-commercial" in card and "net.pkl" in card
    assert sorted(p.name for p in folder.iterdir()) == [
        "SHA256SUMS",
        "card.md",
        "config.json",
        "generator.safetensors",
    ]
    with pytest.raises(UserError, match="already there"):
        import_checkpoint(path, "net")


def test_walking_gives_the_177_entries_of_the_512_model(tmp_path, fakes):
    keys = json.loads((GOLDEN / "eg3d-ffhq512-128.keys.json").read_text())
    shapes = keys["params"] | keys["buffers"]
    # one number each: names are what is compared, and the file stays small
    state = {key: torch.zeros([1] * len(shape)) for key, shape in shapes.items()}
    path = write_snapshot(tmp_path / "net.pkl", generator_object(PRESETS["ffhq512-128"], state))
    snapshot = take_snapshot(read_checkpoint(path))
    assert len(snapshot.tensors) == 177 and set(snapshot.tensors) == set(shapes)


def test_program_text_inside_is_not_run(tmp_path, fakes, generator):
    witness = tmp_path / "witness"
    source = f"import pathlib; pathlib.Path({str(witness)!r}).touch()"
    path = write_snapshot(
        tmp_path / "net.pkl", generator_object(SMALL, generator.state_dict(), source=source)
    )
    import_checkpoint(path, "net")
    assert not witness.exists()
    pickle.loads(path.read_bytes())  # the ordinary way runs it
    assert witness.exists()


def test_a_my3dgen_snapshot_is_merged(tmp_path, fakes, generator):
    rng = torch.Generator().manual_seed(1)
    adapter = new_adapter(generator, 2, 4.0, rng).detached()
    state = {wrapped_name(key): tensor for key, tensor in generator.state_dict().items()}
    for name, tensor in adapter.tensors.items():
        if name.endswith(".lora_B"):
            tensor.normal_(generator=rng)
        if not name.endswith(".delta"):
            state[wrapped_name(name.replace(".weight.lora_", ".lora_"))] = tensor
    stated = {"scaling": 2.0}
    path = write_snapshot(tmp_path / "a.pkl", generator_object(SMALL, state, scaling=stated))
    import_checkpoint(path, "a")
    merged = merge(generator, adapter).state_dict()
    for key, tensor in load_prior("a").generator.state_dict().items():
        torch.testing.assert_close(tensor, merged[key], msg=key)
    silent = write_snapshot(tmp_path / "b.pkl", generator_object(SMALL, state))
    with pytest.raises(FileFormatError, match="--lora-alpha"):
        import_checkpoint(silent, "b")
    import_checkpoint(silent, "b", lora_alpha=4.0)
    assert same_state(load_prior("a").generator, load_prior("b").generator)


def test_wrapper_names_are_those_of_the_release():
    golden = json.loads((GOLDEN / "eg3d-golden.json").read_text())
    low_rank = golden["my3dgen_official_key_names_r1"]
    others = golden["my3dgen_other_trainable_key_names"]
    for key in [*low_rank, *others]:
        assert wrapped_name(plain_name(key)) == key
    with torch.device("meta"):
        parameters = dict(Generator(PRESETS["ffhq512-128"]).named_parameters())
    assert {plain_name(key) for key in others} < set(parameters)
    weights = {plain_name(key).replace("lora_A", "weight") for key in low_rank if key.endswith("lora_A")}
    assert len(weights) == 52 and weights < set(parameters)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_saved_state_dict_needs_to_say_its_model(tmp_path, zipped):
    small = Generator(PRESETS["tiny"])
    path = tmp_path / "pti.pt"
    torch.save({"G_ema": small.state_dict()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileFormatError, match="--like"):
        import_checkpoint(path, "pti")
    with pytest.raises(UserError, match="unknown preset"):
        import_checkpoint(path, "pti", like="huge")
    with pytest.raises(FileFormatError, match=r"lacks|of shape|does not have"):
        import_checkpoint(path, "pti", like="mini")
    import_checkpoint(path, "pti", like="tiny")
    assert same_state(load_prior("pti").generator, small)


def test_half_precision_and_views_are_read(tmp_path):
    """A tensor that is a transposed slice of a larger storage keeps its numbers."""
    base = torch.arange(24.0).half()
    path = tmp_path / "x.pt"
    torch.save({"a": base.reshape(4, 6)[1:3].T, "b": torch.tensor(5), "c": torch.zeros(0, 3)}, path)
    tree = read_checkpoint(path)
    assert torch.equal(tree["a"].load(), base.reshape(4, 6)[1:3].T)
    assert tree["a"].load().dtype == torch.float16 and tree["b"].load() == 5
    assert tree["c"].load().shape == (0, 3)


def test_reader_agrees_with_torch_load(tmp_path):
    state = {
        "a": torch.randn(3, 4),
        "b": torch.arange(5),
        "c": torch.tensor([True, False]),
        "d": torch.rand(2).double(),
    }
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
        expected = torch.load(tmp_path / name, weights_only=True)
        found = read_checkpoint(tmp_path / name)
        assert all(torch.equal(found[key].load(), expected[key]) for key in state)


@pytest.fixture(scope="module")
def snapshot(generator):
    """A snapshot in memory, to change its options without writing files."""
    tensors = {
        key: TensorData(
            StorageData(torch.float32, value.numel()), 0, tuple(value.shape), tuple(value.stride())
        )
        for key, value in generator.state_dict().items()
    }
    return Snapshot(tensors, eg3d_files.init_kwargs(SMALL), eg3d_files.attributes(SMALL), {})


def with_options(snapshot, rendering=None, init=None, **attributes):
    options = snapshot.attributes["rendering_kwargs"] | (rendering or {})
    return replace(
        snapshot,
        init_kwargs=snapshot.init_kwargs | (init or {}),
        attributes=snapshot.attributes | {"rendering_kwargs": options} | attributes,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rendering": {"superresolution_module": "mine.Special"}}, "super-resolution 'mine.Special'"),
        ({"rendering": {"ray_start": "soon"}}, "ray_start"),
        ({"rendering": {"box_warp": -1}}, "box_warp"),
        ({"rendering": {"avg_camera_pivot": [0, 0]}}, "avg_camera_pivot"),
        ({"rendering": {"depth_resolution": 10**9}}, "depth_resolution"),
        ({"init": {"z_dim": 10**9}}, "z_dim"),
        ({"init": {"w_dim": "wide"}}, "w_dim"),
        ({"init": {"channel_max": 8}}, "of shape"),
        ({"init": {"mapping_kwargs": {"num_layers": 10**12}}}, "mapping_layers"),
        ({"init": {"img_resolution": 512}}, "img_resolution"),
        ({"neural_rendering_resolution": 0}, "neural_rendering_resolution"),
    ],
)
def test_options_of_strangers_are_checked(snapshot, change, message):
    with pytest.raises(FileFormatError, match=message) as refusal:
        changed = with_options(snapshot, **change)
        check_shapes(changed, chosen_config(changed, None))
    assert "\n" not in str(refusal.value)


def with_factors(snapshot, layer, a, b, dtype=torch.float32):
    """The snapshot with LoRA factors of these sizes; they have no numbers, so they can't be loaded."""
    factors = {
        f"{layer}.lora_{name}": TensorData(StorageData(dtype, 1 << 20), 0, size, (size[-1], 1))
        for name, size in (("A", a), ("B", b))
        if size
    }
    return replace(snapshot, tensors=snapshot.tensors | factors)


CONV = "backbone.synthesis.b8.conv1"  # (32, 32, 3, 3)


@pytest.mark.parametrize(
    ("layer", "a", "b", "message"),
    [
        ("p0", (3, 288), (32, 3), r"fit together in 'p0'"),
        (CONV, (3, 288), None, "without its lora_B"),
        (CONV, None, (32, 3), "without its lora_A"),
        (CONV, (0, 288), (32, 0), "of rank 0"),
        (CONV, (195, 288), (32, 195), "of rank 65"),
        (CONV, (4, 288), (32, 4), "don't fit the weight"),
        (CONV, (3, 32), (288, 3), "don't fit the weight"),
        ("decoder.net.0", (1, 8), (16, 1), "which no adapter changes"),
        ("backbone.mapping.fc0", (1, 64), (32, 1), "which no adapter changes"),
    ],
)
def test_factors_are_checked_before_any_number_is_read(snapshot, layer, a, b, message):
    with pytest.raises(FileFormatError, match=message):
        check_shapes(with_factors(snapshot, layer, a, b), SMALL)


def test_fitting_factors_pass(snapshot):
    check_shapes(with_factors(snapshot, CONV, (6, 288), (32, 6)), SMALL)
    check_shapes(with_factors(snapshot, f"{CONV}.affine", (2, 32), (32, 2)), SMALL)


def test_weights_must_be_floating_point_and_the_label_spread_a_label(snapshot):
    whole = with_factors(snapshot, CONV, (6, 288), (32, 6), torch.int32)
    with pytest.raises(FileFormatError, match=r"lora_A' as int32; weights must be floating-point"):
        check_shapes(whole, SMALL)
    label = TensorData(StorageData(torch.float32, 1 << 20), 0, (1 << 20,), (1,))
    more = replace(snapshot, tensors=snapshot.tensors | {"dataset_label_std": label})
    with pytest.raises(FileFormatError, match=r"'dataset_label_std' of shape \(1048576,\)"):
        check_shapes(more, SMALL)


def test_many_views_of_the_same_bytes_are_not_loaded(tmp_path):
    """Every tensor has the right shape, but all are one storage; the file is far smaller."""
    shapes = generator_shapes(PRESETS["mini"])
    base = torch.zeros(max(torch.Size(shape).numel() for shape in shapes.values()))
    state = {name: base[: torch.Size(shape).numel()].view(shape) for name, shape in shapes.items()}
    torch.save({"G_ema": state}, tmp_path / "x.pt")
    with pytest.raises(FileFormatError, match=r"describes \d+ MiB of tensors in a file of \d MiB"):
        import_checkpoint(tmp_path / "x.pt", "x", like="mini")


def test_a_tensor_is_read_for_itself_alone():
    """Of a large storage only the tensor's own bytes are copied."""
    data = memoryview(bytes(8 << 20))
    piece = TensorData(StorageData(torch.float32, 2 << 20, data), 1 << 20, (2, 2), (3, 1))
    assert piece.nbytes == 20
    assert piece.load().untyped_storage().nbytes() < 100
    with pytest.raises(FileFormatError, match="of size"):
        rebuild_tensor(piece.storage, 0, (0, 1 << 47, 1 << 47), (1, 1, 1))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module_saved_by_torch(tmp_path, monkeypatch, fakes, generator, zipped):
    path = tmp_path / "whole.pt"
    whole = {"G_ema": generator_object(SMALL, generator.state_dict())}
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    import_checkpoint(path, "whole")
    assert same_state(load_prior("whole").generator, generator)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int16, torch.int8, torch.float64, torch.uint8])
@pytest.mark.parametrize("zipped", [True, False, None])
def test_every_number_type_is_read(tmp_path, dtype, zipped):
    tensor = torch.arange(6).to(dtype)
    if zipped is None:
        (tmp_path / "x").write_bytes(pickle.dumps({"a": tensor}))
    else:
        torch.save({"a": tensor}, tmp_path / "x", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "x")["a"].load()
    assert found.dtype == dtype and torch.equal(found, tensor)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_an_alpha_that_is_none(tmp_path, alpha):
    with pytest.raises(UserError, match=r"--lora-alpha .*: give the positive number"):
        import_checkpoint(tmp_path / "none.pkl", "x", lora_alpha=alpha)


def test_like_is_for_files_that_do_not_say_themselves(tmp_path, fakes, generator):
    path = write_snapshot(tmp_path / "net.pkl", generator_object(SMALL, generator.state_dict()))
    with pytest.raises(FileFormatError, match="leave out --like"):
        import_checkpoint(path, "net", like="tiny")


@pytest.mark.parametrize("size", [1e30, 1e15])
def test_a_refused_import_leaves_nothing(tmp_path, fakes, generator, size):
    """Finite factors whose product is infinite, or finite and absurd."""
    state = dict(generator.state_dict())
    state[f"{CONV}.lora_A"], state[f"{CONV}.lora_B"] = torch.full((3, 288), size), torch.full((32, 3), size)
    path = write_snapshot(tmp_path / "net.pkl", generator_object(SMALL, state, scaling={"scaling": 1.0}))
    with pytest.raises(FileFormatError, match="once its LoRA is merged") as refusal:
        import_checkpoint(path, "net")
    assert "net.pkl" in str(refusal.value)
    assert list(tmp_path.iterdir()) == [path]


def test_options_as_training_left_them(snapshot):
    assert derive_config(snapshot) == SMALL
    assert derive_config(with_options(snapshot, {"ray_start": "auto", "ray_end": "auto"})).ray_start == "auto"
    assert derive_config(with_options(snapshot, init={"sr_num_fp16_res": 0})).superresolution_clamp is None


def test_defaults_of_missing_options(snapshot):
    bare = with_options(snapshot)
    for name in ("c_scale", "superresolution_noise_mode", "sr_antialias", "c_gen_conditioning_zero"):
        del bare.attributes["rendering_kwargs"][name]
    del bare.attributes["neural_rendering_resolution"]
    config = derive_config(bare)
    assert config.c_scale == 0 and config.neural_rendering_resolution == 64 and not config.white_back


def test_numbers_must_be_finite(tmp_path, fakes, generator):
    state = dict(generator.state_dict())
    state["decoder.net.0.bias"] = torch.full_like(state["decoder.net.0.bias"], torch.nan)
    path = write_snapshot(tmp_path / "net.pkl", generator_object(SMALL, state))
    with pytest.raises(FileFormatError, match=r"not finite in 'decoder\.net\.0\.bias'"):
        import_checkpoint(path, "net")


def test_a_missing_entry_is_named(tmp_path, fakes, generator):
    state = dict(generator.state_dict())
    del state["backbone.mapping.w_avg"]
    path = write_snapshot(tmp_path / "net.pkl", generator_object(SMALL, state))
    with pytest.raises(FileFormatError, match=r"lacks 'backbone\.mapping\.w_avg'"):
        import_checkpoint(path, "net")


def test_modules_that_contain_themselves(tmp_path, fakes):
    made = Persistent("Loop", {"_modules": {}})
    made.state["_modules"]["again"] = ring = torch.nn.Sequential()
    ring.__dict__["_modules"] = {"again": ring}
    path = write_snapshot(tmp_path / "net.pkl", made)
    with pytest.raises(FileFormatError, match="without end"):
        import_checkpoint(path, "net")


@pytest.mark.parametrize("name", ["../up", "", "A", "a/b", "-x", "mini", "x" * 80])
def test_names_that_can_not_be_used(tmp_path, name):
    with pytest.raises(UserError, match=r"can.t name|already there"):
        import_checkpoint(tmp_path / "none.pkl", name)


def test_a_file_without_a_generator(tmp_path, fakes):
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps({"G": None, "D": 5}))
    with pytest.raises(FileFormatError, match="no generator 'G_ema'"):
        import_checkpoint(path, "net")


def test_other_classes_are_refused_by_name(tmp_path, fakes):
    path = write_snapshot(tmp_path / "net.pkl", None, extra=SimpleNamespace())
    with pytest.raises(UnsafePickleError, match=r"types\.SimpleNamespace"):
        import_checkpoint(path, "net")
