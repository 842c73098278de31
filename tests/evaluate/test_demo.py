import json
import shutil
from dataclasses import replace

import pytest
import torch

from my3dgen import cli
from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS
from my3dgen.errors import FileFormatError, UserError
from my3dgen.evaluate import demo, gallery
from my3dgen.evaluate.gallery import Sizes, widest_pair
from my3dgen.evaluate.making import nearest_to_front, read_split
from my3dgen.evaluate.protocol import select
from my3dgen.faces.album import Album
from my3dgen.personalize import QUALITIES as PERSONALIZATIONS
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import write_prior

PHOTOS = 8  # of the bundled album; two of them held out
STAGES = {
    "faces",
    "true views",
    "anchors",
    "personalize",
    "tune all",
    *(
        f"{part}, {method}"
        for part in ("held-out photos", "unseen views")
        for method in ("prior", "lora", "full")
    ),
    "pictures",
}


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """The head of the bundled album, and a toy prior; fewer views and smaller pictures."""
    folder = tmp_path / "bundled"
    (folder / "photos").mkdir(parents=True)
    photos = sorted((demo.BUNDLED / "photos").iterdir())[:PHOTOS]
    for photo in photos:
        shutil.copy(photo, folder / "photos")
    names = [photo.name for photo in photos]
    split = {"learn": names[:-2], "held_out": names[-2:]}
    (folder / "split.json").write_text(json.dumps(split))
    shutil.copy(demo.BUNDLED / "truth.json", folder)
    generator = Generator(PRESETS["tiny"], torch.Generator().manual_seed(0))
    with torch.no_grad():
        generator.decoder.net[2].bias[0] += 20  # dense enough for a mesh
    write_prior(tmp_path / "toy", PRESETS["tiny"], generator.state_dict(), "# a toy\n")
    monkeypatch.setattr(demo, "YAWS", (-25, 0, 25))
    monkeypatch.setitem(gallery.SIZES, "draft", Sizes(frames=6, steps=3, samples=3, voxels=48))
    return folder


def test_the_whole_path_stopped_once_and_continued(bundled, tmp_path, capsys, monkeypatch, few_steps):
    out = tmp_path / "out"
    arguments = ["demo", "-o", str(out), "--album", str(bundled), "--prior", str(tmp_path / "toy")]
    arguments += ["--quality", "draft", "--compare", "--json"]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "learn_person", stop)
        assert cli.main(arguments) == 130
    stdout, stderr = capsys.readouterr()
    assert stdout == "" and "run the same command to go on" in stderr
    assert not (out / "report.json").exists()

    assert cli.main(arguments) == 0
    stdout, stderr = capsys.readouterr()
    assert "anchors: done before" in stderr and "personalize: done before" not in stderr
    report = json.loads(stdout)
    assert report == json.loads((out / "report.json").read_text())
    check_contract(report)
    for path in (*report["pictures"].values(), *report["files"].values(), report["person_file"]):
        assert (out / path).stat().st_size > 0
        if path != report["person_file"]:
            assert path in (out / "report.html").read_text()
    assert (out / report["person_file"]).stat().st_size == report["person_file_bytes"]
    assert not list(out.rglob("*.part"))

    assert cli.main(arguments[:-1]) == 0
    stdout, stderr = capsys.readouterr()
    assert stderr.count("done before") == len(STAGES)
    assert "personalised, LoRA" in stdout and "report.html" in stdout

    # another way of learning is another result
    other = replace(PERSONALIZATIONS["draft"], ranks={"b4": 0})
    monkeypatch.setitem(PERSONALIZATIONS, "draft", other)
    monkeypatch.setattr(demo, "learn_person", stop)
    assert cli.main(arguments) == 130
    stderr = capsys.readouterr().err
    assert "anchors: done before" in stderr and "personalize: done before" not in stderr


def check_contract(report):
    """What scripts rely on."""
    assert set(report["methods"]) == {"prior", "lora", "full"}
    for method in report["methods"].values():
        for part in ("heldout", "views"):
            assert all(isinstance(method[part][key], float) for key in ("psnr", "perceptual", "identity"))
        assert len(method["heldout"]["by_photo"]) == report["album"]["held_out"]
        assert len(method["views"]["by_yaw"]) == len(report["views"]["yaw_degrees"])
        unseen = [
            score["psnr"]
            for yaw, score in zip(report["views"]["yaw_degrees"], method["views"]["by_yaw"], strict=True)
            if yaw != report["views"]["source_yaw_degrees"]
        ]
        assert method["views"]["psnr"] == pytest.approx(sum(unseen) / len(unseen), abs=1e-3)
    assert report["views"]["yaw_degrees"] == list(demo.YAWS)
    assert (report["perceptual_network"], report["identity_network"]) == ("lite0-feat", "dlib")
    assert set(report["seconds"]) == STAGES
    assert report["peak_rss_mb"] > 100
    assert report["trained_parameters"] > 0


def test_an_album_that_is_not_there(tmp_path, capsys):
    assert cli.main(["demo", "-o", str(tmp_path / "out"), "--album", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_split_keeps_to_the_usable_photos(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"learn": ["a.jpg", "b.jpg", "c.jpg"], "held_out": ["d.jpg"]}')
    kept = {"a.jpg": "a.png", "c.jpg": "c.png", "d.jpg": "d.png"}
    split = read_split(path, kept)
    assert (split.learn, split.held_out) == (("a.png", "c.png"), ("d.png",))
    with pytest.raises(UserError, match="too few"):
        read_split(path, {"a.jpg": "a.png", "d.jpg": "d.png"})
    path.write_text('{"learn": []}')
    with pytest.raises(FileFormatError, match="held_out"):
        read_split(path, kept)


@pytest.fixture
def album():
    cameras = camera_from_angles(torch.tensor([0.4, -0.1, -0.6]), torch.tensor([0.0, 0.2, 0.1]))
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 4, 4) / 3
    return Album(images, cameras, None, ("a.png", "b.png", "c.png"))


def test_photos_are_chosen_by_name_and_by_view(album):
    part = select(album, ["c.png", "a.png"])
    assert part.names == ("c.png", "a.png")
    assert torch.equal(part.images, album.images[[2, 0]]) and torch.equal(part.cameras, album.cameras[[2, 0]])
    assert nearest_to_front(album) == ["b.png"]
    assert nearest_to_front(album, 2) == ["b.png", "a.png"]
    assert widest_pair(album) == (2, 0)
    with pytest.raises(KeyError):
        select(album, ["d.png"])
