"""What people really hand in: one clear line each, exit code 2, nothing half-written, the rest still used."""

import errno
import json
import struct
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from skimage import data

from my3dgen import cli
from my3dgen.anchors import Anchors
from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.lora import new_adapter
from my3dgen.person import new_person
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import load_prior, write_prior


def run(capsys, *arguments) -> tuple[int, dict | None, str]:
    """Exit code, the JSON object if there is one, and what was said on stderr."""
    code = cli.main([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def told(err: str) -> str:
    """The one line of the refusal."""
    lines = [line for line in err.splitlines() if line.startswith("my3dgen: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def face() -> Image.Image:
    return Image.fromarray(data.astronaut())


def text_named_jpg(path: Path) -> None:
    path.write_text("I am not a photo.")


def truncated(path: Path) -> None:
    face().save(path, quality=90)
    path.write_bytes(path.read_bytes()[:9000])


def empty(path: Path) -> None:
    path.touch()


def tiny(path: Path) -> None:
    face().resize((24, 24)).save(path)


def huge_by_its_header(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b""))]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def two_faces(path: Path) -> None:
    pair = Image.new("RGB", (1024, 512))
    pair.paste(face(), (0, 0))
    pair.paste(face().transpose(Image.Transpose.FLIP_LEFT_RIGHT), (512, 0))
    pair.save(path)


def no_face(path: Path) -> None:
    Image.fromarray(data.coffee()).save(path)


PHOTOS = [
    ("text.jpg", text_named_jpg, "not a picture"),
    ("truncated.jpg", truncated, "damaged or cut short"),
    ("empty.jpg", empty, "empty file"),
    ("tiny.jpg", tiny, "face|small"),
    ("huge.jpg", huge_by_its_header, "larger than 100 megapixels"),
    ("pair.jpg", two_faces, "2 faces of similar size"),
    ("coffee.jpg", no_face, "no face found"),
]


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("name", "write", "reason"), PHOTOS)
def test_a_photo_that_cannot_be_used_alone(photos, capsys, name, write, reason):
    write(photos / name)
    album = photos.parent / "album"
    code, answer, err = run(capsys, "faces", photos, "-o", album)
    assert (code, answer) == (2, None)
    line = told(err)
    assert name in line
    assert any(part in line for part in reason.split("|")), line
    assert sorted(p.name for p in photos.parent.iterdir()) == ["photos"]


def test_the_other_photos_are_still_used(photos, capsys):
    for name, write, _ in PHOTOS:
        write(photos / name)
    face().save(photos / "good.png")
    (photos / "notes.txt").write_text("not a photo and does not claim to be")
    code, answer, err = run(capsys, "faces", photos, "-o", photos.parent / "album")
    assert code == 0 and answer is not None
    assert answer["kept"] == 1 and answer["other_files"] == 1
    assert {entry["file"] for entry in answer["dropped"]} == {name for name, _, _ in PHOTOS}
    assert all(err.count(f"{name}: left out") == 1 for name, _, _ in PHOTOS)
    assert (photos.parent / "album" / "good.png").is_file()


def test_an_empty_folder_and_an_absent_one(photos, capsys):
    code, _, err = run(capsys, "faces", photos, "-o", photos.parent / "album")
    assert code == 2 and "holds no photos" in told(err)
    code, _, err = run(capsys, "faces", photos / "nowhere", "-o", photos.parent / "album")
    assert code == 2 and "does not exist" in told(err)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two toy priors and a person of the first."""
    root = tmp_path_factory.mktemp("world")
    for seed, name in enumerate(("first", "second")):
        generator = Generator(PRESETS["tiny"], torch.Generator().manual_seed(seed))
        write_prior(root / name, PRESETS["tiny"], generator.state_dict(), f"# {name}\n")
    prior = load_prior(root / "first")
    adapter = new_adapter(prior.generator, 1, 1.0, torch.Generator().manual_seed(0))
    ws = torch.randn(3, 1, PRESETS["tiny"].w_dim).expand(-1, PRESETS["tiny"].num_ws, -1)
    anchors = Anchors(ws, camera_from_angles(0.0, 0.0).expand(3, -1))
    new_person(prior, adapter, anchors).save(root / "person.safetensors")
    return root


def rewritten(world: Path, change) -> bytes:
    """The person file with its tensors and card changed, still a valid safetensors file."""
    with safetensors.safe_open(world / "person.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        card = json.loads(file.metadata()["my3dgen"])
    change(tensors, card)
    return safetensors.torch.save(tensors, {"my3dgen": json.dumps(card)})


def longer_rank(tensors, card):
    card["rank"] = 4


def one_tensor_less(tensors, card):
    tensors.pop(next(name for name in tensors if name.endswith("lora_A")))


def not_a_number(tensors, card):
    tensors["anchors.w"][0, 0] = float("nan")


def another_shape(tensors, card):
    tensors["anchors.cameras"] = torch.zeros(3, 24)


def a_stranger(tensors, card):
    tensors["surprise"] = torch.zeros(1)


def no_prior(tensors, card):
    del card["prior"]


@pytest.mark.parametrize(
    "change", [longer_rank, one_tensor_less, not_a_number, another_shape, a_stranger, no_prior]
)
def test_a_person_file_edited_by_hand(world, tmp_path, capsys, change):
    person = tmp_path / "edited.safetensors"
    person.write_bytes(rewritten(world, change))
    code, answer, err = run(capsys, "render", person, "-o", tmp_path / "a.png", "--prior", world / "first")
    assert (code, answer) == (2, None)
    assert "edited.safetensors" in told(err)
    assert [p.name for p in tmp_path.iterdir()] == ["edited.safetensors"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda whole: whole[: len(whole) // 2], "damaged or not a safetensors file"),
        (lambda whole: whole[:4], "damaged or not a safetensors file"),
        (lambda whole: b"", "damaged or not a safetensors file"),
        (lambda whole: b"\x80\x02]q\x00." + whole, "damaged or not a safetensors file"),
        (lambda whole: struct.pack("<Q", 1 << 60) + whole[8:], "damaged or not a safetensors file"),
        (lambda whole: safetensors.torch.save({"a": torch.zeros(1)}), "not a person file"),
    ],
)
def test_a_person_file_that_is_none(world, tmp_path, capsys, content, reason):
    person = tmp_path / "broken.safetensors"
    person.write_bytes(content((world / "person.safetensors").read_bytes()))
    code, _, err = run(capsys, "render", person, "-o", tmp_path / "a.png", "--prior", world / "first")
    assert code == 2
    assert "broken.safetensors" in told(err) and reason in err
    assert [p.name for p in tmp_path.iterdir()] == ["broken.safetensors"]


def test_a_person_of_another_prior(world, tmp_path, capsys):
    person = world / "person.safetensors"
    code, _, err = run(capsys, "render", person, "-o", tmp_path / "a.png", "--prior", world / "second")
    assert code == 2
    line = told(err)
    assert "made with prior 'first'" in line and "not with 'second'" in line
    assert list(tmp_path.iterdir()) == []


def of_nobody(tensors, card):
    card["prior"]["name"] = "~nosuchuser"


def of_a_prior_elsewhere(tensors, card):
    card["prior"]["name"] = "elsewhere"


@pytest.mark.parametrize("change", [of_nobody, of_a_prior_elsewhere])
def test_a_person_whose_prior_is_not_here(world, tmp_path, capsys, change):
    person = tmp_path / "me.safetensors"
    person.write_bytes(rewritten(world, change))
    code, _, err = run(capsys, "render", person, "-o", tmp_path / "a.png")
    assert code == 2
    line, sha256 = told(err), load_prior(world / "first").sha256
    assert str(person) in line and sha256[:12] in line
    assert "--prior FOLDER" in line and "prior import" in line


def test_a_person_file_opens_no_folder_that_it_names(world, tmp_path, capsys):
    def of_a_folder(tensors, card):
        card["prior"]["name"] = str(world / "first")

    person = tmp_path / "me.safetensors"
    person.write_bytes(rewritten(world, of_a_folder))
    code, _, err = run(capsys, "render", person, "-o", tmp_path / "a.png")
    assert code == 2 and "--prior FOLDER" in told(err)
    code, _, err = run(capsys, "render", person, "-o", tmp_path / "a.png", "--prior", world / "first")
    assert code == 0, err


def test_a_person_file_that_is_absent(world, tmp_path, capsys):
    code, _, err = run(capsys, "render", tmp_path / "nobody.safetensors", "-o", tmp_path / "a.png")
    assert code == 2
    assert "nobody.safetensors: is missing" in told(err)


class Evil:
    """Writes a file when unpickled."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return (Path.write_text, (self.witness, "I ran"))


def test_an_evil_checkpoint_is_refused_and_does_not_run(tmp_path, capsys, monkeypatch):
    import pickle

    monkeypatch.setenv("MY3DGEN_HOME", str(tmp_path / "home"))
    witness = tmp_path / "witness"
    checkpoint = tmp_path / "evil.pkl"
    checkpoint.write_bytes(pickle.dumps({"G_ema": Evil(witness)}))
    code, _, err = run(capsys, "prior", "import", checkpoint, "--name", "evil")
    assert code == 2
    assert "evil.pkl" in told(err)
    assert not witness.exists()
    assert not (tmp_path / "home").exists() or not list((tmp_path / "home").rglob("*.*"))
    pickle.loads(checkpoint.read_bytes())  # the test itself: opened the usual way, it does run
    assert witness.read_text() == "I ran"


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_while_drawing(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", full)
    person = world / "person.safetensors"
    code, _, err = run(capsys, "render", person, "-o", tmp_path / "a.png", "--prior", world / "first")
    assert code == 2
    assert "the disk is full" in told(err)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_making_an_album(photos, capsys, monkeypatch):
    face().save(photos / "good.png")
    monkeypatch.setattr(Image.Image, "save", full)
    code, _, err = run(capsys, "faces", photos, "-o", photos.parent / "album")
    assert code == 2
    assert f"the disk is full while writing {photos.parent / 'album'}" in told(err)
    assert sorted(p.name for p in photos.parent.iterdir()) == ["photos"]


def test_a_full_disk_while_saving_a_person(world, tmp_path, monkeypatch):
    from my3dgen.person import Person

    person = Person.load(world / "person.safetensors")
    (tmp_path / "me.safetensors").write_bytes(b"what was there before")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        person.save(tmp_path / "me.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["me.safetensors"]
    assert (tmp_path / "me.safetensors").read_bytes() == b"what was there before"
