import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from my3dgen.anchors import Anchors
from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.errors import FileFormatError, PriorMismatchError
from my3dgen.lora import Adapter, adapter_shapes, new_adapter
from my3dgen.person import PRECISIONS, Card, Person, new_person
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior
from my3dgen.ranks import PLACED


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return Prior("toy", Generator(PRESETS["tiny"]), "ab" * 32, {}, tmp_path_factory.mktemp("toy"))


@pytest.fixture
def person(prior):
    adapter = new_adapter(prior.generator, 2, 4.0, seeded()).detached()
    for tensor in adapter.tensors.values():
        tensor.normal_(generator=seeded(1))
    config = prior.config
    ws = torch.randn(3, config.num_ws, config.w_dim, generator=seeded(2))
    anchors = Anchors(
        ws, camera_from_angles(torch.tensor([-0.3, 0.0, 0.2]), 0.1), ("anna.jpg", "b.jpg", "c.jpg")
    )
    return new_person(prior, adapter, anchors, {"steps": 5, "losses": [0.5, 0.25]})


def test_round_trip_in_full_precision(tmp_path, prior, person):
    path = person.save(tmp_path / "p.safetensors", precision="fp32")
    loaded = Person.load(path, prior)
    assert torch.equal(loaded.anchors.ws, person.anchors.ws)
    assert torch.equal(loaded.anchors.cameras, person.anchors.cameras)
    assert set(loaded.adapter.tensors) == set(person.adapter.tensors)
    assert all(torch.equal(loaded.adapter.tensors[n], t) for n, t in person.adapter.tensors.items())
    assert (loaded.adapter.rank, loaded.adapter.alpha) == (2, 4.0)
    assert loaded.card == person.card == Card("toy", prior.sha256, {"steps": 5, "losses": [0.5, 0.25]})
    assert loaded.facts() == person.facts()


def test_half_precision_rounds_and_large_values_stay(tmp_path, prior, person):
    name = next(iter(person.adapter.tensors))
    person.adapter.tensors[name].fill_(1e6)
    loaded = Person.load(person.save(tmp_path / "p.safetensors"), prior)
    for key, tensor in person.adapter.tensors.items():
        expected = tensor if key == name else tensor.half().float()
        assert torch.equal(loaded.adapter.tensors[key], expected)
    assert torch.equal(loaded.anchors.ws, person.anchors.ws.half().float())
    assert torch.equal(loaded.anchors.cameras, person.anchors.cameras)


def test_every_precision_is_read_back(tmp_path, prior, person):
    """Within half a unit of the last place of what is stored; a row's 127th for int8."""
    sizes = {}
    for precision in PRECISIONS:
        path = person.save(tmp_path / f"{precision}.safetensors", precision=precision)
        loaded, sizes[precision] = Person.load(path, prior), path.stat().st_size
        for name, tensor in person.adapter.tensors.items():
            bound = {"fp32": 0.0, "fp16": 2**-11, "bf16": 2**-8, "int8": 0.501 / 127}[precision]
            error = (loaded.adapter.tensors[name] - tensor).abs().max()
            assert error <= bound * tensor.abs().max() + 1e-7, (precision, name)
        assert torch.equal(loaded.anchors.cameras, person.anchors.cameras)
        assert not torch.equal(loaded.anchors.ws, person.anchors.ws) or precision == "fp32"
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(scales=t["scales"][1:].clone()), r"has \d+ scales for \d+ rows of int8"),
        (lambda t: t.update(scales=torch.zeros(2, 2)), "has 4 scales for"),
        (lambda t: t.pop("scales"), "scales and a card"),
        (lambda t: t["scales"].fill_(9e5), "which holds numbers beyond"),
        (lambda t: t["scales"].fill_(torch.nan), "not finite"),
        (lambda t: t["scales"].fill_(1e4), "numbers beyond|by more than"),
        (lambda t: t.update({f"{CONV}.weight.lora_A": torch.zeros(6, 288).long()}), "is I64"),
        (lambda t: t.update({"adapter.a.lora_B": torch.zeros(100)}), r"has \d+ scales for \d+ rows"),
        (lambda t: t.update({"anchors.x": torch.zeros(())}), r"'anchors\.x'"),
    ],
)
def test_edited_int8(tmp_path, person, change, message):
    path = person.save(tmp_path / "p.safetensors", precision="int8")
    tensors, metadata = load_file(path), safe_open(path, "pt").metadata()
    assert tensors[f"{CONV}.weight.lora_A"].dtype == torch.int8
    change(tensors)
    save_file(tensors, path, metadata)
    refused(path, message)


def test_ranks_are_read_from_the_shapes(tmp_path, prior, person):
    """Layers of other ranks or without a change, and extras left out, come back as they were."""
    chosen = {"ranks": {"affine": 3, "torgb": 0, "b8": 1}, "extras": ("bias",)}
    adapter = new_adapter(prior.generator, 2, 4.0, seeded(), **chosen).detached()
    for tensor in adapter.tensors.values():
        tensor.normal_(generator=seeded(3))
    one = new_person(prior, adapter, person.anchors)
    loaded = Person.load(one.save(tmp_path / "p.safetensors", precision="fp32"), prior)
    assert loaded.adapter.ranks == adapter.ranks and loaded.facts()["rank"] == 3
    assert loaded.adapter.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(loaded.adapter.tensors[n], t) for n, t in adapter.tensors.items())


def test_latents_in_w_are_stored_once(tmp_path, prior, person):
    ws = person.anchors.ws[:, :1].expand_as(person.anchors.ws)
    one = replace(person, anchors=Anchors(ws, person.anchors.cameras))
    loaded = Person.load(one.save(tmp_path / "p.safetensors", precision="fp32"), prior)
    assert torch.equal(loaded.anchors.ws, ws)
    assert load_file(tmp_path / "p.safetensors")["anchors.w"].shape == (3, prior.config.w_dim)


def test_a_rank_1_person_of_the_512_model_is_below_a_megabyte(tmp_path):
    """With fifty anchors in W, the paper's number of photos."""
    config = PRESETS["ffhq512-128"]
    with torch.device("meta"):
        generator = Generator(config)
    tensors = {n: torch.rand(s, generator=seeded()) for n, s in adapter_shapes(generator, 1).items()}
    w = torch.randn(50, 1, config.w_dim, generator=seeded(1)).expand(50, config.num_ws, config.w_dim)
    person = Person(
        Adapter(1.0, tensors),
        Anchors(w, camera_from_angles(torch.linspace(-1, 1, 50), 0.0)),
        Card("x", "y"),
    )
    assert person.facts()["trainable_parameters"] == 243_965
    size = person.save(tmp_path / "p.safetensors").stat().st_size
    assert size < 600_000
    assert torch.equal(Person.load(tmp_path / "p.safetensors").anchors.ws, w.half().float())
    made = replace(person, card=Card("ffhq512-128", "ab" * 32, {"notes": "x" * 900}))
    assert made.save(tmp_path / "q.safetensors", precision="int8").stat().st_size <= 300_000
    # so are the ranks that `personalize` gives
    shapes = adapter_shapes(generator, 1, ranks=PLACED)
    placed = Adapter(1.0, {n: torch.rand(s, generator=seeded()) for n, s in shapes.items()})
    made = replace(made, adapter=placed)
    assert made.save(tmp_path / "r.safetensors", precision="int8").stat().st_size <= 300_000


def test_the_file_says_nothing_about_who_it_is(tmp_path, person):
    path = person.save(tmp_path / "p.safetensors")
    data = path.read_bytes()
    assert b"anna" not in data and str(tmp_path).encode() not in data
    assert os.stat(path).st_mode & 0o077 == 0
    assert Person.load(path).anchors.names is None
    named = person.save(tmp_path / "named.safetensors", names=True)
    assert Person.load(named).anchors.names == ("anna.jpg", "b.jpg", "c.jpg")


def test_the_card(tmp_path, prior, person):
    with safe_open(person.save(tmp_path / "p.safetensors"), "pt") as file:
        card = json.loads(file.metadata()["my3dgen"])
    shapes = adapter_shapes(prior.generator, 2)
    numbers = {n: int(torch.Size(s).numel()) for n, s in shapes.items()}
    assert card["prior"] == {"name": "toy", "sha256": prior.sha256}
    assert card["trainable_parameters"] == sum(numbers.values())
    assert card["lora_parameters"] == sum(k for n, k in numbers.items() if "lora" in n)
    assert (card["format"], card["rank"], card["alpha"], card["anchors"]) == (1, 2, 4.0, 3)


def test_another_prior_is_named(tmp_path, prior, person):
    path = person.save(tmp_path / "p.safetensors")
    other = replace(prior, name="other", sha256="cd" * 32)
    with pytest.raises(PriorMismatchError, match=r"p\.safetensors: .*'toy' \(abab.*'other' \(cdcd"):
        Person.load(path, other)
    bigger = replace(prior, generator=Generator(replace(PRESETS["tiny"], channel_max=16)))
    with pytest.raises(PriorMismatchError, match="this prior needs"):
        Person.load(path, bigger)


def test_saving_is_whole_or_not_at_all(tmp_path, person):
    path = person.save(tmp_path / "p.safetensors")
    before = path.read_bytes()
    next(iter(person.adapter.tensors.values())).fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        person.save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


def test_an_adapter_of_many_people_is_not_one_person(tmp_path, prior, person):
    from my3dgen.lora import stack

    several = replace(person, adapter=stack([person.adapter, person.adapter]))
    with pytest.raises(ValueError, match="batch axis"):
        several.save(tmp_path / "p.safetensors")


CONV = "adapter.backbone.synthesis.b4.conv1"
WIDE = {"A": (1 + 3 * 64, 288), "B": (32, 1 + 3 * 64)}  # one component above the largest rank


def refused(path, match):
    with pytest.raises(FileFormatError, match=match) as refusal:
        Person.load(path)
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)


@pytest.mark.parametrize("keep", [0, 5, 200, -3])
def test_truncated(tmp_path, person, keep):
    path = person.save(tmp_path / "p.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "damaged or not a safetensors file")


def test_not_a_person(tmp_path):
    refused(tmp_path / "absent", "missing")
    refused(tmp_path, "not a file")
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text", "not a safetensors file")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", "no card")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 33)
    refused(tmp_path / "huge", "more than the 256 MiB allowed")


def test_a_file_that_grows_in_memory(tmp_path, person, monkeypatch):
    """int8 takes four times its size: numbers are counted before they are read."""
    path = person.save(tmp_path / "p.safetensors", precision="int8")
    numbers = sum(t.numel() for t in load_file(path).values())
    monkeypatch.setattr("my3dgen.person.MAX_NUMBERS", numbers)
    Person.load(path)
    monkeypatch.setattr("my3dgen.person.MAX_NUMBERS", numbers - 1)
    refused(path, "holds more than the 0 million numbers allowed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["anchors.ws"].fill_(torch.nan), "not finite"),
        (lambda t: t["anchors.cameras"].mul_(torch.inf), "not finite"),
        (lambda t: t.update({"anchors.ws": torch.zeros(2, 8, 32)}), "its card asks for"),
        (lambda t: t.update({"anchors.cameras": torch.zeros(3, 24)}), "its card asks for"),
        (lambda t: t.pop("anchors.cameras"), "'anchors.cameras' of shape None"),
        (lambda t: t.pop("anchors.ws"), "'anchors.ws' of shape None"),
        (lambda t: t.update({"anchors.extra": torch.zeros(3)}), r"'anchors\.extra'"),
        (lambda t: t.update({"secret": torch.zeros(3)}), "unknown entry 'secret'"),
        (lambda t: t.pop("adapter.backbone.synthesis.b4.conv1.weight.lora_B"), "unusable adapter entry"),
        (lambda t: t.update({"adapter.x.lora_A": torch.zeros(3, 4)}), "unusable adapter entry"),
        (
            lambda t: t.update({f"{CONV}.weight.lora_{k}": torch.zeros(s) for k, s in WIDE.items()}),
            "unusable adapter entry",
        ),
        (lambda t: t.update({"adapter.x": torch.zeros(3)}), "unusable adapter entry"),
        (lambda t: t.update({"adapter.x.delta": torch.zeros(3)}), "does not fit its tensors"),
        (lambda t: t.update({"anchors.ws": torch.zeros(3, 8, 32).int()}), "is I32"),
        (lambda t: t["anchors.cameras"][1].zero_(), "unusable camera 1"),
        (lambda t: t["anchors.cameras"][2].fill_(1e30), "beyond"),
        (
            lambda t: t["anchors.cameras"][2, 11:12].fill_(2e3),
            "unusable camera 2: it holds a number beyond 1000",
        ),
        (lambda t: t["anchors.ws"].fill_(3e38), r"'anchors\.ws' holds numbers beyond 1e\+06"),
        (lambda t: t[f"{CONV}.weight.lora_B"].fill_(1e37), r"lora_B' holds numbers beyond 1e\+06"),
        (
            lambda t: [t[f"{CONV}.weight.{name}"].fill_(1e4) for name in ("lora_A", "lora_B")],
            r"factors that change '.*b4\.conv1\.weight' by more than 1e\+06",
        ),
        (
            lambda t: t.update({f"{CONV}.noise_strength.delta": torch.zeros(5)}),
            "noise_strength.* a batch axis",
        ),
        (lambda t: t.update({f"{CONV}.bias.delta": torch.zeros(1, 32)}), "bias.* a batch axis"),
    ],
)
def test_edited_tensors(tmp_path, person, change, message):
    path = person.save(tmp_path / "p.safetensors", precision="fp32")
    tensors, metadata = load_file(path), safe_open(path, "pt").metadata()
    change(tensors)
    save_file(tensors, path, metadata)
    refused(path, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("prior"), "'prior'"),
        (lambda c: c.update(prior={"name": "a\nb", "sha256": "x"}), "'prior'"),
        (lambda c: c.update(format=2), "format '2', this version reads 1"),
        (lambda c: c.update(rank=0), "a card whose rank does not fit"),
        (lambda c: c.update(rank=10**9), "'rank'"),
        (lambda c: c.update(precision="int4"), "'precision'"),
        (lambda c: c.update(precision="int8"), "scales and a card"),
        (lambda c: c.update(rank=True), "'rank'"),
        (lambda c: c.update(rank=3), "a card whose rank does not fit its tensors"),
        (lambda c: c.update(rank=-1), "'rank'"),
        (lambda c: c.update(alpha="1"), "'alpha'"),
        (lambda c: c.update(alpha=float("nan")), "not JSON"),
        (lambda c: c.update(anchors=10**12), "'anchors'"),
        (lambda c: c.update(anchors=4), "its card asks for"),
        (lambda c: c.update(num_ws=3), "its card asks for"),
        (lambda c: c.update(made=[]), "'made'"),
        (lambda c: c.update(lora_parameters=1), "lora_parameters"),
        (lambda c: c.update(photos=["a"]), "'photos'"),
        (lambda c: c.update(more="x" * 70_000), "no card"),
    ],
)
def test_edited_card(tmp_path, person, change, message):
    path = person.save(tmp_path / "p.safetensors", precision="fp32")
    tensors, metadata = load_file(path), safe_open(path, "pt").metadata()
    card = json.loads(metadata["my3dgen"])
    change(card)
    save_file(tensors, path, {"my3dgen": json.dumps(card)})
    refused(path, message)


@pytest.mark.parametrize("text", ["{", "[1]", "null", "[" * 50_000])
def test_a_card_that_is_not_an_object(tmp_path, person, text):
    path = person.save(tmp_path / "p.safetensors")
    save_file(load_file(path), path, {"my3dgen": text})
    refused(path, r"not JSON|card of format")


def test_flipped_bytes_never_surprise(tmp_path, prior, person):
    """Damaged anywhere, a file loads or is refused; the header is where damage matters."""
    import random

    whole, rng = person.save(tmp_path / "p.safetensors").read_bytes(), random.Random(0)
    header = int.from_bytes(whole[:8], "little")
    refusals = 0
    for _ in range(150):
        data = bytearray(whole)
        data[rng.randrange(8 + header)] = rng.randrange(256)
        (tmp_path / "x").write_bytes(data)
        try:
            Person.load(tmp_path / "x", prior)
        except (FileFormatError, PriorMismatchError):
            refusals += 1
    assert refusals > 100


def test_what_passes_the_bounds_is_drawn(tmp_path, prior, person):
    """The largest numbers that a file may hold give a picture, not NaN."""
    for name, tensor in person.adapter.tensors.items():
        largest = (5e5 / tensor.shape[name.endswith("B")]) ** 0.5 if "lora" in name else 1e6
        scale = person.adapter.scale(name.rpartition(".")[0]) if "lora" in name else 1.0
        tensor.fill_(largest / scale**0.5)
    person.anchors.ws.fill_(1e6)
    loaded = Person.load(person.save(tmp_path / "p.safetensors"), prior)
    anchors = loaded.anchors
    assert prior.generator.synthesis(anchors.ws, anchors.cameras, loaded.adapter).image.isfinite().all()
