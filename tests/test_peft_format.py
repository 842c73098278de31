import errno
import json
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from my3dgen import peft_format
from my3dgen.cli import run_verb
from my3dgen.cli.peft_export import PeftExport
from my3dgen.cli.peft_import import PeftImport
from my3dgen.config import PRESETS
from my3dgen.errors import FileFormatError, UserError
from my3dgen.lora import merge, new_adapter, stack
from my3dgen.peft_format import CONFIG, EXTRAS, FACTORS, PREFIX, export_peft, import_peft
from my3dgen.person import Person, new_person
from my3dgen.prior.generator import Generator


@pytest.fixture(scope="module")
def generator():
    return Generator(PRESETS["tiny"]).requires_grad_(False)


@pytest.fixture(params=[(1, 1.0, {}), (2, 16.0, {}), (2, 6.0, {"affine": 3, "b8": 1, "torgb": 0})], ids=str)
def adapter(request, generator):
    rng = torch.Generator().manual_seed(0)
    rank, alpha, ranks = request.param
    adapter = new_adapter(generator, rank, alpha, rng, ranks=ranks).detached()
    for tensor in adapter.tensors.values():
        tensor.normal_(generator=rng)
    return adapter


def plain_tree(generator):
    """Conv2d and Linear layers under the generator's names, holding its stored weights."""
    root = nn.Module()
    for name, weight in generator.named_parameters():
        if not name.endswith(".weight") or not name.startswith(("backbone.synthesis", "superres")):
            continue
        *path, leaf = tree_name(name).split(".")[:-1]
        if weight.ndim == 4:
            made = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=False)
        else:
            made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        made.weight = nn.Parameter(weight.clone())
        parent = root
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(leaf, made)
    return root


def tree_name(weight):
    """A weight's name in that tree: convolutions are called conv, beside their affine."""
    return weight if ".affine." in weight else weight.replace(".weight", ".conv.weight")


@pytest.fixture(scope="module")
def peft():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of importing transformers
        import peft
    return peft


def test_round_trip_is_exact(tmp_path, generator, adapter):
    loaded = import_peft(export_peft(adapter, tmp_path / "a"), generator)
    assert (loaded.rank, loaded.alpha) == (adapter.rank, adapter.alpha)
    assert set(loaded.tensors) == set(adapter.tensors)
    assert all(torch.equal(loaded.tensors[name], t) for name, t in adapter.tensors.items())


def test_peft_merges_to_the_same_weights(tmp_path, generator, adapter, peft):
    folder = export_peft(adapter, tmp_path / "a", base="toy")
    model = peft.PeftModel.from_pretrained(plain_tree(generator), str(folder))
    merged = model.merge_and_unload().state_dict()
    ours = merge(generator, adapter)
    adapted = [name.removesuffix(".lora_A") for name in adapter.tensors if name.endswith(".lora_A")]
    left = set(merged) - {tree_name(name) for name in adapted}
    assert left == {n for n in merged if "torgb.conv" in n and adapter.rank == 3}
    for name in adapted:
        weight = merged[tree_name(name)]
        torch.testing.assert_close(weight, ours.get_parameter(name).detach(), msg=name)
        assert not torch.equal(weight, generator.get_parameter(name))


def test_what_peft_saves_is_read(tmp_path, generator, adapter, peft):
    folder = export_peft(adapter, tmp_path / "a")
    model = peft.PeftModel.from_pretrained(plain_tree(generator), str(folder))
    model.save_pretrained(str(tmp_path / "b"))
    loaded = import_peft(tmp_path / "b", generator)
    for name, tensor in loaded.tensors.items():
        assert torch.equal(tensor, adapter.tensors[name] if "lora" in name else torch.zeros_like(tensor))


def test_a_foreign_folder_with_few_layers_and_other_ranks(tmp_path, generator, peft):
    """What PEFT trains itself, with its own defaults, changes the generator as PEFT says."""
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=2,
        lora_alpha=8,
        target_modules=["backbone.synthesis.b8.conv0.conv", "b8.torgb.conv", "b8.conv0.affine"],
        rank_pattern={"b8.conv0.conv": 7},
        alpha_pattern={"b8.torgb.conv": 3},
        init_lora_weights=False,
    )
    model = peft.get_peft_model(plain_tree(generator), config)
    model.save_pretrained(str(tmp_path))
    adapter = import_peft(tmp_path, generator)
    assert adapter.rank == 3 and len(adapter.ranks) == 3
    expected = model.merge_and_unload().state_dict()
    merged = merge(generator, adapter)
    for name in (name.removesuffix(".lora_A") for name in adapter.tensors if name.endswith(".lora_A")):
        torch.testing.assert_close(merged.get_parameter(name).detach(), expected[tree_name(name)], msg=name)


def test_the_verbs_carry_a_person_there_and_back(tmp_path, tiny_prior, truth, capsys):
    adapter = new_adapter(tiny_prior.generator, 1, 2.0).detached()
    for name, tensor in adapter.tensors.items():
        tensor.fill_(0.25 if name.endswith("lora_B") else 0.5)
    file, folder, back = tmp_path / "me.safetensors", tmp_path / "peft", tmp_path / "back.safetensors"
    new_person(tiny_prior, adapter, truth).save(file)
    out = ["-o", str(folder), "--json"]
    assert run_verb("peft export", PeftExport, [str(file), *out]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(folder), "rank": 1, "alpha": 2.0}
    options = ["--person", str(file), "--prior", str(tiny_prior.folder), "-o", str(back), "--json"]
    assert run_verb("peft import", PeftImport, [str(folder), *options]) == 0
    assert json.loads(capsys.readouterr().out)["person_file"] == str(back)
    loaded, original = Person.load(back, tiny_prior), Person.load(file)
    assert loaded.adapter.alpha == 2.0
    assert all(torch.equal(loaded.adapter.tensors[n], t) for n, t in adapter.tensors.items())
    assert torch.equal(loaded.anchors.ws, original.anchors.ws)
    with pytest.raises(UserError, match="already there"):
        run_verb("peft export", PeftExport, [str(file), *out])


def test_a_full_disk_leaves_no_folder(tmp_path, adapter, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(peft_format, "write_text", full)  # the configuration, which is written last
    with pytest.raises(OSError, match="No space"):
        export_peft(adapter, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_of_many_people_is_not_exported(tmp_path, adapter):
    with pytest.raises(ValueError, match="batch axis"):
        export_peft(stack([adapter, adapter]), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "'use_dora' is True"),
        ({"use_rslora": True}, "'use_rslora'"),
        ({"bias": "all"}, "'bias' is all"),
        ({"modules_to_save": ["x"]}, "'modules_to_save'"),
        ({"peft_type": "IA3"}, "not a PEFT LoRA"),
        ({"r": 0}, "'r'"),
        ({"r": 10**9}, "'r'"),
        ({"lora_alpha": "8"}, "'lora_alpha'"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "'alpha_pattern'"),
        ({"alpha_pattern": {"a": None}}, "'alpha_pattern'"),
    ],
)
def test_configurations_that_can_not_be_carried_over(tmp_path, generator, change, message):
    folder = export_peft(new_adapter(generator, 1, 1.0).detached(), tmp_path)
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FileFormatError, match=message) as refusal:
        import_peft(folder, generator)
    assert CONFIG in str(refusal.value)


A = f"{PREFIX}backbone.synthesis.b8.conv0.conv.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(A), "lacks one of its two factors"),
        (lambda t: t.update({A: t[A][:, :1].clone()}), "does not fit"),
        (lambda t: t.update({A: torch.zeros(500, *t[A].shape[1:])}), "does not fit"),
        (
            lambda t: t.update(
                {A.replace("b8", "b9"): t[A], A.replace("b8", "b9").replace("_A", "_B"): t[A]}
            ),
            "no adaptable",
        ),
        (lambda t: t.update({"more": t[A]}), "unknown entry 'more'"),
        (lambda t: t[A].fill_(torch.nan), "not finite"),
    ],
)
def test_factors_must_fit(tmp_path, generator, change, message):
    folder = export_peft(new_adapter(generator, 1, 1.0).detached(), tmp_path)
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / FACTORS).items()}
    change(tensors)
    save_file({name: t.clone() for name, t in tensors.items()}, folder / FACTORS)
    with pytest.raises(FileFormatError, match=message):
        import_peft(folder, generator)


def test_damaged_folders(tmp_path, generator):
    folder = export_peft(new_adapter(generator, 1, 1.0).detached(), tmp_path)
    with pytest.raises(FileFormatError, match=r"no adaptable|does not fit"):
        import_peft(folder, Generator(replace(PRESETS["tiny"], plane_resolution=16, channel_max=16)))
    save_file({"backbone.synthesis.b4.const.delta": torch.zeros(3, 4, 4)}, folder / EXTRAS)
    with pytest.raises(FileFormatError, match=r"extras\.safetensors: '.*b4\.const\.delta' is no constant"):
        import_peft(folder, generator)
    (folder / EXTRAS).write_bytes(b"short")
    with pytest.raises(FileFormatError, match=r"extras\.safetensors.*damaged"):
        import_peft(folder, generator)
    (folder / CONFIG).write_text("{")
    with pytest.raises(FileFormatError, match="not JSON"):
        import_peft(folder, generator)
    with pytest.raises(FileFormatError, match="missing"):
        import_peft(tmp_path / "absent", generator)
