import numpy as np
import pytest
import torch
from PIL import Image

from my3dgen.apps.enhance import Drawn
from my3dgen.apps.framed import Framed
from my3dgen.apps.photo_edit import edit_photo, photo_edit_sheet, put_back, reshaped
from my3dgen.apps.sheet import to_image
from my3dgen.faces.album import Album
from my3dgen.faces.align import Square
from my3dgen.faces.build import pixels
from my3dgen.invert import InvertConfig
from my3dgen.tune import TuneConfig

SIDE = 96


def framed_in(photo: Image.Image) -> Framed:
    """The middle of a photo, all of it person."""
    square = Square(photo.width / 2, photo.height / 2, float(SIDE))
    left, top = (photo.width - SIDE) // 2, (photo.height - SIDE) // 2
    image = pixels(photo.crop((left, top, left + SIDE, top + SIDE)))[None]
    return Framed(photo, square, Album(image, torch.zeros(1, 25), torch.ones_like(image[:, :1]), ("a",)))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(60, 190, (128, 120, 3), np.uint8))


def drawn(image) -> Drawn:
    return Drawn(image, torch.ones_like(image[:, :1]))


def test_without_a_change_the_photo_stays_bit_by_bit(photo):
    rendering = drawn(torch.full((1, 3, SIDE, SIDE), 0.2))
    assert put_back(framed_in(photo), rendering, rendering).tobytes() == photo.tobytes()


def test_a_change_of_light_keeps_the_photos_detail(photo):
    dark, light = (drawn(torch.full((1, 3, SIDE, SIDE), level)) for level in (0.0, 0.2))
    before, after = (np.asarray(x).astype(int) for x in (photo, put_back(framed_in(photo), dark, light)))
    inside = after[40:-40, 40:-40] - before[40:-40, 40:-40]
    assert np.abs(inside - 0.2 * 127.5).max() <= 1
    border = (128 - SIDE) // 2
    assert np.abs(after[border] - before[border]).max() <= 4  # it fades out toward the square's border
    assert (after[:10] == before[:10]).all()


def test_a_change_of_shape_shows_the_rendering_in_the_photos_colours():
    """A dark bar of the photo that the rendering has a little elsewhere is gone when the edit removes it."""
    photo = np.full((128, 120, 3), 160, np.uint8)
    photo[58:68, 40:80] = 40
    before = torch.full((1, 3, SIDE, SIDE), 0.0)
    after = before.clone()
    before[..., 44:54, 24:60] = -0.9
    result = np.asarray(put_back(framed_in(Image.fromarray(photo)), drawn(before), drawn(after))).astype(int)
    assert np.abs(result - 160).max() <= 3


def test_an_outline_that_is_off_a_little_stays_the_photos():
    """The photo's head is two pixels wider than the rendering's; a mouth close by changes."""
    photo = np.full((SIDE, SIDE, 3), 255, np.uint8)
    photo[:, :60] = 120
    framed = framed_in(Image.fromarray(photo))
    assert framed.album.masks is not None
    framed.album.masks[..., 60:] = 0
    before, opacity = torch.ones(1, 3, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    before[..., :58], opacity[..., :58] = -0.06, 1
    after = before.clone()
    after[..., 44:54, 26:44] = -0.9
    edited = np.asarray(put_back(framed, Drawn(before, opacity), Drawn(after, opacity))).astype(int)
    assert np.abs(edited[20:-20, 57:] - photo[20:-20, 57:]).max() <= 3
    assert edited[46:52, 30:40].max() < 40


def test_what_counts_as_reshaped():
    change, person = torch.zeros(3, 96, 96), torch.zeros(1, 96, 96)
    person[:, 20:76, 20:76] = 1
    light = change + 0.5 * person
    assert not reshaped(light, person, 96.0).any()
    outline = change.clone()
    outline[:, 20, 20:76] = 0.3
    assert not reshaped(outline, person, 96.0).any()
    mouth = change.clone()
    mouth[:, 50:58, 40:60] = 0.8
    found = reshaped(light + mouth, person, 96.0)
    assert found[0, 50:58, 40:60].all() and found.float().mean() < 0.1


def test_a_photo_is_edited_by_every_model(prior, person):
    with torch.no_grad():
        made = prior.generator.synthesis(person.anchors.ws[2:3], person.anchors.cameras[2:3], person.adapter)
    photo = to_image(made.image.clamp(-1, 1)).resize((SIDE, SIDE))
    size = prior.config.img_resolution
    small = pixels(photo.resize((size, size)))[None]
    album = Album(small, person.anchors.cameras[2:3], None, ("a",))
    framed = Framed(photo, Square(SIDE / 2, SIDE / 2, float(SIDE)), album)
    config = InvertConfig(coarse_steps=2, fine_steps=1, perceptual=0.0)
    tune = TuneConfig(steps=3, warm=1, samples=6, perceptual=0.0)
    words = {"strengths": (0, 1), "yaws": (0.4,), "config": config, "tune": tune}
    plain, tuned = edit_photo(prior, person, framed, direction="smile", **words)
    assert plain.photos[0].tobytes() == photo.tobytes() != plain.photos[1].tobytes()
    assert plain.unedited.image.tobytes() == plain.edits[0].image.tobytes() != tuned.edits[0].image.tobytes()
    assert [len(one.views) for one in (*plain.edits, tuned.unedited)] == [2, 2, 2]
    page = photo_edit_sheet(framed, [plain, tuned], (23,), "smile")
    assert page.height > 5 * size and page.width > 3 * size
