import numpy as np
import pytest
import torch
from PIL import Image

from my3dgen.apps.sheet import save_image, sheet, to_grey, to_image
from my3dgen.errors import UserError


def test_to_image_scales_clamps_and_truncates():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]).view(1, 1, 6).expand(3, -1, -1)
    assert np.asarray(to_image(values))[0, :, 0].tolist() == [0, 0, 128, 191, 255, 255]
    assert to_image(values[None]).size == (6, 1)


def test_to_grey_maps_its_limits_to_black_and_white():
    values = torch.tensor([[[2.0, 2.5, 3.0, 9.0]]])
    assert np.asarray(to_grey(values, 2.0, 3.0))[0, :, 1].tolist() == [0, 128, 255, 255]


def test_sheet_keeps_pixels_in_order_and_writes_captions():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    images = [Image.new("RGB", (64, 64), c) for c in colours]
    page = sheet(images, ["one", "two", "three"], columns=2, row_titles=["a", "b"], title="Title", cell=64)
    pixels = np.asarray(page).astype(int)
    centres = []
    for colour in colours:
        rows, columns = np.where((pixels == colour).all(-1))
        assert len(rows) == 64 * 64  # every pixel of the image is there, unscaled
        centres.append((rows.mean(), columns.mean()))
    assert centres[0][0] == centres[1][0] < centres[2][0]
    assert centres[0][1] == centres[2][1] < centres[1][1]
    plain = sheet(images, columns=2, cell=64)
    assert page.width > plain.width and page.height > plain.height
    assert (pixels.sum(-1) < 400).sum() > (np.asarray(plain).sum(-1) < 400).sum()  # dark ink was added


def test_sheet_fits_odd_shapes_and_tensors():
    page = np.asarray(sheet([torch.full((3, 20, 40), -1.0)], cell=80))
    assert (page == 0).all(-1).sum() == 80 * 40


def test_sheet_refuses_what_no_viewer_opens():
    with pytest.raises(UserError, match="16384"):
        sheet([Image.new("RGB", (4, 4))] * 100, columns=100, cell=512)
    with pytest.raises(ValueError, match="captions"):
        sheet([Image.new("RGB", (4, 4))], ["a", "b"])


def test_save_image_leaves_nothing_half_written(tmp_path):
    picture = Image.new("RGB", (4, 4))
    assert save_image(picture, tmp_path / "new" / "a.png").exists()
    with pytest.raises(UserError, match=r"\.xyz"):
        save_image(picture, tmp_path / "a.xyz")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.png"]
