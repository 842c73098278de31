"""Filling holes and enlarging: what may influence the result, and what it may touch."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data

from my3dgen import cli
from my3dgen.apps.enhance import enlarge, erase, fill, hole_of, pulled
from my3dgen.apps.framed import Framed, Photo, frame
from my3dgen.apps.membrane import membrane
from my3dgen.apps.sheet import to_image
from my3dgen.errors import PhotoError, UserError
from my3dgen.evaluate.metrics import psnr
from my3dgen.faces.album import Album, write_album
from my3dgen.faces.align import Square
from my3dgen.faces.build import pixels
from my3dgen.invert import InvertConfig
from my3dgen.lora import new_adapter
from my3dgen.person import new_person
from my3dgen.tune import TuneConfig

QUICK = InvertConfig(coarse_steps=2, fine_steps=1, perceptual=0.0)
TUNE = TuneConfig(steps=3, window=None, samples=8, perceptual=0.0)


@pytest.fixture(scope="module")
def me(tiny_prior, truth):
    return new_person(tiny_prior, new_adapter(tiny_prior.generator, 1, 1.0), truth)


@pytest.fixture(scope="module")
def photo(photos):
    """The fourth photo."""
    album = Album(photos.images[3:4], photos.cameras[3:4], photos.masks[3:4], ("d.png",))
    return Photo(to_image(album.images), "d.png", album)


@pytest.fixture(scope="module")
def mask():
    mask = Image.new("L", (64, 64))
    mask.paste(255, (20, 24, 44, 40))
    return mask


def test_a_membrane_is_the_solution_of_laplace_s_equation():
    """Against a direct solution on a grid whose hole touches the picture's edge."""
    rng = torch.Generator().manual_seed(0)
    values, known = torch.randn(1, 20, 26, generator=rng), torch.ones(1, 20, 26, dtype=torch.bool)
    known[:, 4:14, 6:26] = False
    known[:, 8, 15] = True
    system, right = torch.eye(520, dtype=torch.float64), values.flatten().double()
    for y, x in (~known[0]).nonzero().tolist():
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, min(x + 1, 25))]  # at the edge, its own neighbour
        system[y * 26 + x] = 0
        system[y * 26 + x, y * 26 + x] = 1.0
        for a, b in near:
            system[y * 26 + x, a * 26 + b] -= 0.25
        right[y * 26 + x] = 0
    exact = torch.linalg.solve(system, right).reshape(1, 20, 26).float()
    found = membrane(values, known)
    assert torch.equal(found[known], values[known])
    torch.testing.assert_close(found, exact, atol=0.002, rtol=0)


def test_a_membrane_bridges_a_slope_and_knows_nothing_of_what_it_bridges():
    slope = torch.linspace(-1, 1, 200).expand(2, 150, 200)
    known = torch.ones(1, 150, 200, dtype=torch.bool)
    known[:, 30:120, 40:170] = False
    hidden = torch.where(known, slope, torch.rand(2, 150, 200) * 9)
    torch.testing.assert_close(membrane(hidden, known), slope, atol=0.002, rtol=0)
    assert torch.equal(membrane(slope, known | True), slope)
    assert (membrane(slope, known & False) == 0).all()


@pytest.mark.parametrize(("angle", "side"), [(0.0, 100.0), (0.3, 100.0), (-0.5, 400.0)])
def test_what_is_cut_from_a_photo_and_pasted_back_lies_where_it_was(photos, angle, side):
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 300), torch.linspace(0, 9, 400), indexing="ij")
    image = to_image(torch.stack([rows.sin(), columns.cos(), (rows + columns).sin()]))
    size = 128
    framed = Framed(
        image,
        Square(190.0, 140.0, side, angle),
        Album(torch.zeros(1, 3, size, size), photos.cameras[:1], None, ("a",)),
    )
    back, depth = framed.paste(framed.cut(image))
    left, top, right, bottom = framed.window
    there = pixels(image.crop(framed.window))
    assert back.shape == there.shape == (3, bottom - top, right - left)
    inside = (depth > 0.03).expand_as(back)
    assert inside.float().mean() > 0.4
    assert (back - there)[inside].abs().max() < 0.05
    assert depth.max() == pytest.approx(0.5, abs=0.02)


def test_a_face_in_a_photo_is_framed_by_its_square(tiny_prior):
    """The astronaut's crop, pasted back, is the photo itself, made as small as the prior."""
    astronaut = Photo(Image.fromarray(data.astronaut()), "astronaut.png")
    framed = frame(astronaut, astronaut.image, tiny_prior.config)
    back, depth = framed.paste(framed.album.images)
    there = pixels(astronaut.image.crop(framed.window))
    assert psnr(back[None], there[None], (depth > 0.02).float()[None]).item() > 22
    with pytest.raises(PhotoError, match="too small"):
        frame(astronaut, astronaut.image, tiny_prior.config, least=500.0)


def test_a_hole_is_what_is_white_and_a_little_more(photo, mask):
    hole = hole_of(mask, photo.image)
    assert hole[0, 23:41, 19:45].all() and hole.sum() == 18 * 26
    for wrong, line in (
        (mask.resize((64, 65)), "64 x 65 pixels, the upright photo 64 x 64"),
        (Image.new("L", (64, 64)), "no white"),
        (Image.new("RGB", (64, 64), "white"), "leaves nothing"),
    ):
        with pytest.raises(UserError, match=line):
            hole_of(wrong, photo.image)


def scribbled(photo, hole):
    """The photo with something else in the hole."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    other = Image.fromarray(np.where(hole[0].numpy()[..., None], noise, np.asarray(photo.image)))
    return replace(photo, image=other)


@pytest.mark.parametrize("tune", [None, TUNE])
def test_a_hole_is_filled_with_the_person_and_its_pixels_never_matter(tiny_prior, me, photo, mask, tune):
    hole = hole_of(mask, photo.image)
    one, two = (
        fill(tiny_prior, me, frame(p, erase(p.image, hole), tiny_prior.config), hole, QUICK, tune=tune)
        for p in (photo, scribbled(photo, hole))
    )
    assert one.image.tobytes() == two.image.tobytes()
    assert torch.equal(one.rendering, two.rendering)
    outside = ~hole[0].numpy()
    assert (np.asarray(one.image)[outside] == np.asarray(photo.image)[outside]).all()
    assert (one.placed.alphas.argmax(-1) == 3).all()
    assert psnr(pixels(one.image)[None], pixels(photo.image)[None], hole[None].float()).item() > 30
    assert one.beyond == 0
    assert (one.weights[..., 25:39, 21:43] == 0).all() and (one.weights[..., :20, :] == 1).all()


def test_the_seam_takes_on_the_photo_s_light(tiny_prior, me, photo, mask):
    """The same photo, darker: no person's photo is so dark, yet no edge shows where the hole was."""
    dark = replace(photo, image=photo.image.point(lambda level: level * 0.8))
    hole = hole_of(mask, dark.image)
    framed = frame(dark, erase(dark.image, hole), tiny_prior.config)
    done = pixels(fill(tiny_prior, me, framed, hole, QUICK).image)[None]
    assert psnr(done, pixels(dark.image)[None], hole[None].float()).item() > 25


def test_a_hole_elsewhere_has_nothing_to_do_with_the_person(tiny_prior, me, photo):
    wide = Image.new("RGB", (160, 64), "grey")
    wide.paste(photo.image, (96, 0))
    framed = Framed(wide, Square(128.0, 32.0, 64.0), photo.album)
    hole = torch.zeros(1, 64, 160, dtype=torch.bool)
    hole[:, 10:30, 10:30] = True
    with pytest.raises(UserError, match="nothing to fill"):
        fill(tiny_prior, me, framed, hole, QUICK)
    hole[:, 20:40, 120:140] = True
    done = fill(tiny_prior, me, replace(framed, photo=erase(wide, hole)), hole, QUICK)
    assert done.beyond == pytest.approx(0.5)
    assert np.asarray(done.image)[10:30, 10:30].std() < 1  # bridged


def small_of(photo, scale):
    image = to_image(F.avg_pool2d(pixels(photo.image)[None], scale))
    masks = F.avg_pool2d(photo.album.masks, scale)
    album = Album(pixels(image)[None], photo.album.cameras, masks, ("d.png",))
    return Photo(image, "d.png", album)


def large(photo, scale):
    size = (photo.image.width * scale, photo.image.height * scale)
    return photo.image.resize(size, Image.Resampling.BICUBIC)


def test_a_small_photo_is_enlarged_with_the_person_s_detail(tiny_prior, me, photo):
    small = small_of(photo, 4)
    framed = frame(small, large(small, 4), tiny_prior.config)
    done, plain = (enlarge(tiny_prior, me, small.image, framed, QUICK, pull=pull) for pull in (True, False))
    assert (done.placed.alphas.argmax(-1) == 3).all()
    assert done.image.size == (64, 64) and done.image.tobytes() != plain.image.tobytes()
    assert done.rendering.shape[-1] == 16  # as much as the photo can tell
    assert psnr(done.rendering, done.shown, done.weights).item() > 25


def test_around_the_square_an_enlargement_is_the_photo(tiny_prior, me, photo):
    small = small_of(photo, 4)
    wide = Image.new("RGB", (48, 16), "teal")
    wide.paste(small.image, (32, 0))
    big = wide.resize((192, 64), Image.Resampling.BICUBIC)
    framed = Framed(big, Square(160.0, 32.0, 64.0), frame(small, large(small, 4), tiny_prior.config).album)
    done = enlarge(tiny_prior, me, wide, framed, QUICK)
    assert (np.asarray(done.image)[:, :127] == np.asarray(big)[:, :127]).all()
    assert (np.asarray(done.image)[:, 135:] != np.asarray(big)[:, 135:]).mean() > 0.4


def test_pulling_mends_colours_and_leaves_edges(photo):
    true = pixels(photo.image)
    tinted = (0.9 * true + torch.tensor([0.1, -0.05, 0.0])[:, None, None]).clamp(-1, 1)
    small = F.avg_pool2d(true[None], 4)[0]
    mended = pulled(tinted, small, 4)
    assert psnr(mended[None], true[None]).item() > psnr(tinted[None], true[None]).item() + 6
    edge = torch.where(torch.arange(64) < 30, -1.0, 1.0).expand(3, 64, 64)
    shifted = edge.roll(2, -1)
    shifted[..., :2] = -1
    kept = pulled(shifted, F.avg_pool2d(edge[None], 4)[0], 4)
    torch.testing.assert_close(kept, shifted, atol=0.1, rtol=0)


def test_a_photo_with_the_prior_s_detail_is_large_enough(tiny_prior, me, photo):
    framed = frame(photo, large(photo, 2), tiny_prior.config)
    with pytest.raises(UserError, match="has 64 pixels across the face already, and the prior draws 64"):
        enlarge(tiny_prior, me, photo.image, framed, QUICK)


@pytest.fixture(scope="module")
def run(tiny_prior, me, tmp_path_factory):
    """The verb with the person on the toy prior: (exit code, result, stderr)."""
    person = me.save(tmp_path_factory.mktemp("person") / "me.safetensors")
    module = importlib.import_module("my3dgen.invert")

    def call(capsys, *arguments):
        words = ["enhance", *arguments, "--person", person, "--prior", tiny_prior.folder]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(module.QUALITIES, "draft", QUICK)
            code = cli.main([*map(str, words), "--quality", "draft", "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return call


def test_the_verb_fills_an_album(run, photos, mask, capsys, tmp_path):
    few = Album(photos.images[:2], photos.cameras[:2], photos.masks[:2], photos.names[:2])
    album = write_album(tmp_path / "album", few)
    (tmp_path / "holes").mkdir()
    mask.save(tmp_path / "holes" / "a.png")
    mask.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "holes" / "b.png")
    out = tmp_path / "whole"
    code, result, err = run(capsys, album, "--mask", tmp_path / "holes", "-o", out)
    assert code == 0, err
    assert result["images"] == [str(out / "a.png"), str(out / "b.png")] and result["photos"] == 2
    assert min(result["psnr"]) > 20 and result["beyond"] == [0, 0]
    code, _, err = run(capsys, album, "--mask", tmp_path / "holes", "-o", out)
    assert code == 2 and f"{out} holds something already" in err
    (tmp_path / "holes" / "b.png").unlink()
    code, _, err = run(capsys, album, "--mask", tmp_path / "holes", "-o", tmp_path / "more")
    assert code == 2 and f"{tmp_path / 'holes' / 'b.png'} does not exist" in err


def test_the_verb_enlarges_and_fills_a_photograph(run, capsys, tmp_path):
    astronaut = Image.fromarray(data.astronaut())
    astronaut.resize((128, 128), Image.Resampling.BOX).save(tmp_path / "tiny.png")
    code, result, err = run(capsys, tmp_path / "tiny.png", "--scale", 3, "-o", tmp_path / "large.png")
    assert code == 0, err
    assert set(result) == {"images", "photos", "psnr"}
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (384, 384)
    astronaut.save(tmp_path / "photo.png")
    hole = Image.new("L", astronaut.size)
    hole.paste(255, (205, 140, 240, 165))
    hole.save(tmp_path / "hole.png")
    words = ["--mask", tmp_path / "hole.png", "-o", tmp_path / "whole.png", "--space", "w+"]
    code, result, err = run(capsys, tmp_path / "photo.png", *words)
    assert code == 0, err
    with Image.open(tmp_path / "whole.png") as whole:
        changed = (np.asarray(whole) != np.asarray(astronaut)).any(2)
    assert changed[145:160, 210:235].mean() > 0.9
    changed[135:170, 200:245] = False
    assert not changed.any()


def test_what_cannot_be_done_is_one_line_and_leaves_nothing(run, mask, capsys, tmp_path):
    Image.fromarray(data.astronaut()).save(tmp_path / "photo.png")
    Image.new("RGB", (200, 200), "green").save(tmp_path / "grass.png")
    Image.new("L", (200, 200)).save(tmp_path / "black.png")
    Image.new("RGB", (4000, 3000)).save(tmp_path / "vast.png")
    mask.save(tmp_path / "mask.png")
    face = Image.new("L", (512, 512))
    face.paste(255, (100, 0, 400, 400))
    face.save(tmp_path / "face.png")
    square = Image.new("L", (200, 200))
    square.paste(255, (50, 50, 100, 100))
    square.save(tmp_path / "square.png")
    (tmp_path / "text.png").write_text("none")
    before = sorted(tmp_path.iterdir())
    cases = [
        (["photo.png"], "give --mask PICTURE to fill a hole, or --scale NUMBER"),
        (["photo.png", "--mask", "mask.png", "--scale", 2], "one of them"),
        (["photo.png", "--scale", 17], "--scale 17 is out of range; choose 2 to 16"),
        (["photo.png", "--scale", 2, "--tune"], "--tune goes with --mask"),
        (["photo.png", "--scale", 2, "--beta", 2], "--beta 2 is outside"),
        (["photo.png", "--scale", 2], "photo.png has 157 pixels across the face already"),
        (["none.png", "--scale", 2], "none.png does not exist"),
        ([".", "--scale", 2], "name one photo, or an album"),
        (["text.png", "--scale", 2], "text.png: not a picture"),
        (["grass.png", "--scale", 2], "grass.png, enlarged 2 times: no face found; crop it"),
        (["vast.png", "--scale", 8], "would be 32000 x 24000 pixels"),
        (["photo.png", "--mask", "mask.png"], "mask.png is 64 x 64 pixels, the upright photo 512 x 512"),
        (["grass.png", "--mask", "black.png"], "black.png has no white pixels"),
        (["grass.png", "--mask", "square.png"], "no face found, with what is to be filled hidden"),
        (["photo.png", "--mask", "text.png"], "text.png: not a picture"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for words, line in cases:
            code, result, err = run(capsys, *words, "-o", tmp_path / "o.png")
            assert code == 2 and result is None, (words, err)
            assert line in err and err.count("\n") == 1, (words, err)
    assert sorted(tmp_path.iterdir()) == before
