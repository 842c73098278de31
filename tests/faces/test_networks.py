"""Our networks against their reference runtimes.

tests/golden/networks.json holds what LiteRT 2.3.0 (TFLite files) and dlib 20.0.1 answered to parts of
scikit-image's astronaut (NASA, public domain). The float16 files reproduce LiteRT to rounding;
dlib's weights are kept in int8, hence the wider tolerance.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from skimage import data

from my3dgen.faces.blendshapes import NAMES, POINTS, load_mixer
from my3dgen.faces.detect import load_detector
from my3dgen.faces.landmarks import load_landmarker
from my3dgen.faces.segment import load_segmenter
from my3dgen.identity import load_identity
from my3dgen.weights.networks import FOLDER, manifest

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "networks.json").read_text())


def part(top: int, left: int, size: int) -> torch.Tensor:
    """Pixels 0 to 255 of a square of the astronaut, batch of one."""
    pixels = data.astronaut()[top : top + size, left : left + size].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


@pytest.fixture(scope="module")
def close_up() -> torch.Tensor:
    return part(64, 160, 128).repeat_interleave(2, 2).repeat_interleave(2, 3) / 255


def test_detector():
    numbers, logits = load_detector()(part(62, 160, 128) / 127.5 - 1)
    expected = GOLDEN["detector"]
    best = int(logits[0, :, 0].argmax())
    assert best == expected["best"]
    assert float(logits[0, best, 0]) == pytest.approx(expected["logit"], abs=1e-3)
    torch.testing.assert_close(numbers[0, best], torch.tensor(expected["numbers"]), rtol=0, atol=5e-3)


def test_landmarks(close_up):
    points, presence, _ = load_landmarker()(close_up)
    found = points.reshape(478, 3)[::20]
    torch.testing.assert_close(found, torch.tensor(GOLDEN["landmarks"]["points"]), rtol=0, atol=5e-3)
    assert float(presence) == pytest.approx(GOLDEN["landmarks"]["presence_logit"], abs=1e-2)


def test_blendshapes(close_up):
    points = load_landmarker()(close_up)[0].reshape(1, 478, 3)[:, list(POINTS), :2]
    scores = load_mixer()(points)[0]
    torch.testing.assert_close(scores, torch.tensor(GOLDEN["blendshapes"]), rtol=0, atol=1e-4)
    assert scores[NAMES.index("mouthSmileLeft")] > 0.8  # she smiles


def test_segmenter(close_up):
    (mask,) = load_segmenter()(close_up)
    blocks = torch.nn.functional.avg_pool2d(mask, 32)[0, 0]
    torch.testing.assert_close(blocks, torch.tensor(GOLDEN["mask"]), rtol=0, atol=1e-3)


def test_dlib():
    embedding = load_identity().network(part(50, 150, 150))[0]
    expected = torch.tensor(GOLDEN["dlib"])
    assert torch.cosine_similarity(embedding, expected, dim=0) > 0.999
    assert (embedding - expected).norm() < 0.05  # strangers differ by 0.6 and more


def test_the_manifest_tells_every_file_its_licence_and_hash():
    files = {path.stem for path in FOLDER.glob("*.safetensors")}
    assert files == set(manifest())
    for name, entry in manifest().items():
        content = (FOLDER / f"{name}.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert entry["licence"] and entry["source"]
    assert sum(entry["bytes"] for entry in manifest().values()) <= 14e6
