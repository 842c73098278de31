from dataclasses import replace

import numpy as np

from my3dgen.evaluate.enhancement import HOLES, enhancement, hole_picture
from my3dgen.evaluate.metrics import load_judge
from my3dgen.evaluate.protocol import select
from my3dgen.invert import InvertConfig
from my3dgen.lora import new_adapter
from my3dgen.person import new_person

QUICK = InvertConfig(coarse_steps=8, fine_steps=4, perceptual=0.0, cameras=False)


def test_holes_lie_where_the_camera_sees_the_features(tiny_prior, truth):
    masks = {hole: np.asarray(hole_picture(truth.cameras[2:3], tiny_prior, hole, 64)) > 127 for hole in HOLES}
    rows = {hole: np.nonzero(mask)[0].mean() for hole, mask in masks.items()}
    assert 20 < rows["eyes"] < rows["mouth"] < 54
    assert all(0.02 < mask.mean() < 0.35 for mask in masks.values())
    columns = np.nonzero(masks["left side"])[1].mean()
    assert columns < np.nonzero(masks["mouth"])[1].mean()


def test_figures_compare_with_what_is_cheap(tiny_prior, truth, photos):
    me = new_person(tiny_prior, new_adapter(tiny_prior.generator, 1, 1.0), truth)
    few = select(replace(photos, masks=None), ["d.png", "b.png"])
    assert few.names == ("d.png", "b.png") and (few.images[1] == photos.images[1]).all()
    judge = load_judge()
    picture, (mouth, eyes) = enhancement(tiny_prior, me, few, config=QUICK, scale=4, judge=judge)
    assert (mouth.photo, mouth.hole, eyes.photo, eyes.hole) == ("d.png", "mouth", "b.png", "eyes")
    assert min(mouth.filled, eyes.filled) > 25 and min(mouth.bicubic, eyes.bicubic) > 20
    assert picture.width > 5 * 200
    # anchors of another colour cannot show the photos
    strange = replace(few, images=-few.images)
    _, (worse, _) = enhancement(tiny_prior, me, strange, config=QUICK, scale=4, judge=judge)
    assert worse.enlarged < mouth.enlarged - 3
    assert worse.bicubic > worse.enlarged
