"""One real photo for the face tests: scikit-image's astronaut (NASA, public domain)."""

import pytest
import torch
from PIL import Image
from skimage import data


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="session")
def astronaut_tensor() -> torch.Tensor:
    return torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1).float() / 127.5 - 1
