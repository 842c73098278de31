"""The shipped head asset: whole, oriented, and what its card says."""

import hashlib
import json
from importlib import resources

import torch

from my3dgen.synthetic.asset import load_asset, vertex_normals

FOLDER = resources.files("my3dgen") / "weights" / "heads"


def test_card_matches_the_file() -> None:
    card = json.loads((FOLDER / "head.json").read_text())
    data = (FOLDER / "head.npz").read_bytes()
    assert hashlib.sha256(data).hexdigest() == card["sha256"]
    assert card["licence"] == "CC0-1.0"
    assert len(data) < 2_000_000


def test_face_units() -> None:
    asset = load_asset()
    assert len(asset.unit_names) == len(set(asset.unit_names)) == 52
    assert {"jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft"} <= set(asset.unit_names)
    assert len(asset.bases) == 48 + 58 + 52
    assert asset.macro_average.sum() == 2  # one share of ancestry, one of build


def test_units_move_their_own_side() -> None:
    asset = load_asset()
    for side, sign in (("Left", 1), ("Right", -1)):
        moved = asset.bases[106 + asset.unit(f"mouthSmile{side}")].norm(dim=1)
        assert (moved * asset.base[:, 0] * sign).sum() > 0


def test_surface_faces_outwards() -> None:
    asset = load_asset()
    normals = vertex_normals(asset.template[None], asset.triangles, asset.incidence)[0]
    tip = (asset.template - asset.landmarks["nose"]).norm(dim=1).argmin()
    crown = (asset.template - asset.landmarks["crown"]).norm(dim=1).argmin()
    assert normals[tip, 2] > 0.7
    assert normals[crown, 1] > 0.9
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(len(normals)))


def test_landmarks_are_where_a_face_has_them() -> None:
    marks = load_asset().landmarks
    assert marks["crown"][1] > marks["eye_left"][1] > marks["nose"][1] > marks["mouth"][1] > marks["chin"][1]
    assert marks["eye_left"][0] > 0 > marks["eye_right"][0]
    assert marks["nose"][2] > marks["mouth_front"][2] > marks["eye_left"][2] > marks["ear_left"][2]


def test_masks_cover_their_regions() -> None:
    asset = load_asset()
    assert set(asset.masks) == {"lips", "eyelids", "ears", "face", "inner_mouth"}
    for mask in asset.masks.values():
        assert len(mask) == len(asset.template)
        assert mask.min() >= -1e-6
        assert mask.max() <= 1 + 1e-6
        assert 0 < (mask > 0.5).float().mean() < 0.6
    lips = asset.template[asset.masks["lips"] > 0.6]
    assert lips[:, 0].abs().max() < 0.4


def test_lashes_grow_away_from_the_eye() -> None:
    asset = load_asset()
    points = asset.base[asset.lashes]
    side = (points[:, 0, 0] < 0).long()
    centre = asset.base[asset.eye_helpers].mean(1)[side]
    root, tip = (points[:, :2].mean(1) - centre).norm(dim=1), (points[:, 2:].mean(1) - centre).norm(dim=1)
    assert (tip > root).all()
