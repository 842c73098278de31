"""The verbs from end to end, as a person at a terminal meets them."""

import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from my3dgen import cli
from my3dgen.apps.mesh import density_grid
from my3dgen.apps.subject import subject_of
from my3dgen.evaluate.demo import BUNDLED
from my3dgen.prior.directions import DirectionFacts, save_directions


@pytest.fixture(scope="module")
def run(prior, person, tmp_path_factory):
    """A verb with the person, on the toy prior: (exit code, result, stderr)."""
    folder = tmp_path_factory.mktemp("verbs")
    me = person.save(folder / "me.safetensors")
    facts = DirectionFacts(1.0, 1.0, 1.0, 1.0, (), {}, 100)
    save_directions(
        prior.folder / "directions.safetensors", prior.directions, dict.fromkeys(prior.directions, facts)
    )

    def call(capsys, verb, *arguments):
        words = [*verb.split(), str(me), "--prior", str(prior.folder), *map(str, arguments), "--json"]
        code = cli.main(words)
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return call


def size_of(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def frames_of(path) -> int:
    with Image.open(path) as picture:
        return picture.n_frames  # pyright: ignore


def test_render(run, capsys, tmp_path):
    code, result, err = run(
        capsys, "render", "-o", tmp_path / "a.png", "--size", 80, "--depth", tmp_path / "d.npy"
    )
    assert code == 0 and result["size"] == 80 and result["made_at"] == 64
    assert "resampled to 80" in err
    assert size_of(tmp_path / "a.png") == (80, 80)
    assert np.load(tmp_path / "d.npy").shape == (1, 16, 16)


def test_render_of_several_yaws_is_a_sheet(run, capsys, tmp_path):
    code, result, _ = run(
        capsys, "render", "-o", tmp_path / "a.png", "--yaw", -30, 0, 30, "--depth", tmp_path / "d.png"
    )
    assert code == 0 and result["views"] == 3
    assert size_of(tmp_path / "a.png")[0] > 3 * 64 and (tmp_path / "d.png").exists()


def test_orbit(run, capsys, tmp_path):
    code, result, _ = run(capsys, "orbit", "-o", tmp_path / "a.gif", "--frames", 5, "--anchor", 1)
    assert code == 0 and result["frames"] == 5
    assert frames_of(tmp_path / "a.gif") == 5


def test_interpolate(run, capsys, tmp_path):
    words = ["--from", 0, "--to", 3, "--steps", 3, "--video", tmp_path / "a.webp", "--frames", 3]
    code, result, _ = run(capsys, "interpolate", "-o", tmp_path / "a.png", *words)
    assert code == 0 and result["frames"] == 3
    assert frames_of(tmp_path / "a.webp") == 3


def test_a_loop_through_many_photos_with_stills_and_report(run, capsys, tmp_path):
    words = ["--anchors", "0,2", "0=0.5+4=0.5", "--loop", "--seconds", 0.5, "--fps", 12, "--steps", 4]
    files = ["--video", tmp_path / "a.gif", "--stills", tmp_path / "all", "--report", tmp_path / "a.json"]
    code, result, err = run(capsys, "interpolate", "-o", tmp_path / "a.png", *words, *files)
    assert code == 0, err
    assert (result["frames"], result["seconds"]) == (6, 0.5)
    assert frames_of(tmp_path / "a.gif") == 6
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == [f"frame{k:04d}.png" for k in range(6)]
    report = json.loads((tmp_path / "a.json").read_text())
    assert len(report["pictures"]) == len(report["steps"]) == 6  # the last step is back to the first picture
    assert report["pictures"][0]["identity"] == pytest.approx(1, abs=0.05)
    assert report["references"] == [0, 2, 4]
    assert size_of(result["chart"])[0] == 1100
    again = run(capsys, "interpolate", "-o", tmp_path / "a.png", *words, "--stills", tmp_path / "all")
    assert again[0] == 2 and "not empty" in again[2]


def test_sample(run, capsys, tmp_path):
    words = ["--count", 3, "--beta", 0.1, "--support", 2, "--stills", tmp_path / "all"]
    code, result, _ = run(capsys, "sample", "-o", tmp_path / "a.png", *words)
    assert code == 0 and [len(alpha) for alpha in result["alphas"]] == [2, 2, 2]
    assert len(list((tmp_path / "all").iterdir())) == 3
    assert (tmp_path / "a.png").exists()


def test_edit(run, capsys, tmp_path):
    words = ["--direction", "smile", "--strengths", -1, 1, "--space", "alpha"]
    code, result, _ = run(capsys, "edit", "-o", tmp_path / "a.png", *words)
    assert code == 0 and result["strengths"] == [-1, 1] and len(result["outside"]) == 2
    assert 0 < result["reach"] < 1
    assert (tmp_path / "a.png").exists()


def test_edit_of_two_attributes_from_three_sides_with_a_report(run, capsys, tmp_path):
    words = ["--direction", "smile=1.5", "--direction", "blink=-1", "--yaw", -30, 0, 30, "--strengths", 1, 2]
    files = ["--report", tmp_path / "a.json", "--stills", tmp_path / "all"]
    code, result, err = run(capsys, "edit", "-o", tmp_path / "a.png", *words, *files)
    assert code == 0, err
    assert result["direction"] == {"smile": 1.5, "blink": -1}
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["strengths"] == [0, 1, 2] and report["identity"][0] == 1  # 0 is drawn to compare with
    assert len(result["distance"]) == 2 and result["distance"] == pytest.approx(
        report["distance"][1:], abs=1e-3
    )
    assert size_of(result["chart"])[0] > 600
    assert len(list((tmp_path / "all").iterdir())) == 6


def test_edit_of_a_photo(run, capsys, tmp_path):
    photo = BUNDLED / "photos" / "photo05.jpg"
    words = [
        "--photo",
        photo,
        "--tune",
        "--quality",
        "draft",
        "--strengths",
        1,
        "--stills",
        tmp_path / "all",
    ]
    code, result, err = run(capsys, "edit", "-o", tmp_path / "a.png", *words, "--report", tmp_path / "a.json")
    assert code == 0, err
    assert len(result["psnr"]) == 2 and len(result["distance"]) == 1
    (still,) = (tmp_path / "all").iterdir()
    assert size_of(still) == size_of(photo)
    Image.new("RGB", (200, 200)).save(tmp_path / "black.png")
    code, _, err = run(capsys, "edit", "-o", tmp_path / "b.png", "--photo", tmp_path / "black.png")
    assert code == 2 and "black.png: no face found" in err


def level_of(prior, person) -> float:
    """A density that one voxel in a hundred exceeds."""
    subject = subject_of(prior, person)
    grid = density_grid(subject.generator, subject.generator.planes(subject.latent(), subject.adapter), 24)
    return float(np.percentile(grid, 99))


def test_mesh(run, prior, person, capsys, tmp_path):
    level = level_of(prior, person)
    words = ["--resolution", 24, "--level", level, "--ply"]
    code, result, _ = run(capsys, "mesh", "-o", tmp_path / "a.glb", *words)
    assert code == 0 and result["level"] == level
    assert trimesh.load_mesh(result["mesh"]).faces.shape == (result["faces"], 3)
    assert trimesh.load_mesh(result["ply"]).faces.shape == (result["faces"], 3)
    assert size_of(result["preview"])[0] > 300


@pytest.mark.parametrize(
    ("verb", "words", "line"),
    [
        ("render", ["--anchor", 7], "anchor 7 does not exist; there are 0 to 4"),
        ("render", ["--alpha", "half"], "ANCHOR=WEIGHT"),
        ("render", ["--depth", "d.jpg"], ".png (a picture) or .npy"),
        ("orbit", [], ".mp4, .webp, .gif"),
        ("interpolate", ["--anchors", "3"], "two photos or more"),
        ("interpolate", ["--anchors", "3", "x=1"], "mixture such as"),
        ("interpolate", ["--anchors", "3", "1", "--to", 2], "not both"),
        ("interpolate", ["--anchors", "3", "1", "--report", "a.txt"], "ends in .json"),
        ("edit", ["--direction", "beard"], "it has: blink, smile"),
        ("edit", ["--direction", "smile=big"], "NAME=WEIGHT"),
        ("edit", ["--strengths"], "at least one number"),
        ("edit", ["--tune"], "give --photo, too"),
        ("edit", ["--photo", "a.jpg", "--anchor", 1], "and no anchors"),
        ("edit", ["--photo", "a.jpg", "--pitch", 5], "leave out --pitch, --size and --resolution"),
        ("mesh", [], ".glb or .ply"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(run, capsys, tmp_path, verb, words, line):
    code, result, err = run(capsys, verb, "-o", tmp_path / "a.png", *words)
    assert code == 2 and result is None
    assert line in err
    assert list(tmp_path.iterdir()) == []


def test_without_a_person_the_prior_is_drawn(prior, capsys, tmp_path):
    words = ["render", "-o", str(tmp_path / "a.png"), "--prior", str(prior.folder), "--seed", "3"]
    assert cli.main(words) == 0
    assert "1 view ->" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["render", "orbit", "interpolate --from 0 --to 1", "sample", "edit", "mesh"])
@pytest.mark.parametrize("name", ["a.xyz", "folder.png", "folder.mp4", "folder.glb"])
def test_a_place_for_the_result_is_refused_before_anything_is_loaded(
    run, capsys, tmp_path, monkeypatch, verb, name
):
    for folder in ("folder.png", "folder.mp4", "folder.glb"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr("my3dgen.prior.store.load_prior", lambda *_: pytest.fail("loaded"))
    code, _, err = run(capsys, verb, "-o", tmp_path / name)
    assert code == 2 and str(tmp_path / name) in err
    assert err.startswith("my3dgen: ") and err.count("\n") == 1
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "words",
    [
        ["render", "--yaw", "nan"],
        ["render", "--pitch", "inf"],
        ["render", "--alpha", "0=nan"],
        ["render", "--alpha", "0=inf", "1=1"],
        ["sample", "--yaw-range", "nan"],
        ["edit", "--yaw", "inf"],
        ["render", "--seed", 10**23],
        ["edit", "--beta", "nan", "--space", "alpha"],
    ],
)
def test_numbers_that_are_none(run, capsys, tmp_path, words):
    code, _, err = run(capsys, words[0], "-o", tmp_path / "a.png", *words[1:])
    assert code == 2 and err.startswith("my3dgen: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_video_out_of_range_is_refused_before_the_sheet(run, capsys, tmp_path):
    words = ["--from", 0, "--to", 1, "--video", tmp_path / "a.gif", "--frames", 1]
    code, _, err = run(capsys, "interpolate", "-o", tmp_path / "a.png", *words)
    assert (code, "1 steps is out of range" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_depth_does_not_replace_the_picture(run, capsys, tmp_path):
    code, _, err = run(capsys, "render", "-o", tmp_path / "a.png", "--depth", tmp_path / "a.png")
    assert (code, "choose another" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_of_a_mesh_leaves_other_pictures_alone(run, prior, person, capsys, tmp_path):
    (tmp_path / "me.png").write_text("a rendering")
    words = ["--resolution", 24, "--level", level_of(prior, person)]
    code, result, _ = run(capsys, "mesh", "-o", tmp_path / "me.glb", *words)
    assert code == 0 and result["preview"] == str(tmp_path / "me.preview.png")
    assert (tmp_path / "me.png").read_text() == "a rendering"
