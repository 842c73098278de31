"""Who is it? Embeddings of faces by dlib's ResNet, for metrics only (no loss uses this network).

The network (Davis King, CC0) was trained so that two pictures of one person lie within an L2
distance of 0.6 and pictures of two people beyond it. A face must be brought to its 150-pixel chip
first. For a picture with an EG3D camera that needs no detector: the eye corners and the nose of
the canonical face are projected, so it works on any render and is differentiable.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from my3dgen.cameras import project
from my3dgen.errors import UserError
from my3dgen.faces.canonical import canonical_face
from my3dgen.weights.networks import load_tensors

FIVE = (263, 362, 33, 133, 2)
"""Landmarks of dlib's five points: the corners of its left and of its right eye, the nose's base."""
CHIP = 150
PADDING = 0.25
TEMPLATE = (
    (0.8595674595992, 0.2134981538014),
    (0.6460604764104, 0.2289674387677),
    (0.1205750620789, 0.2137274526848),
    (0.3340850613712, 0.2290642403242),
    (0.4901123135679, 0.6277975316475),
)
"""dlib's five points in a chip without padding, as fractions of its size."""
SAME_PERSON = 0.6
"""L2 distance below which dlib calls two photos the same person."""
# (count, width) of the groups; the first block of each but the first group, and one more, halve the size.
WIDTHS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)
HALVING = (3, 7, 10, 13)


class Residual(nn.Module):
    """dlib's residual block; a halving one averages its shortcut and pads it with zero channels."""

    def __init__(self, inputs: int, outputs: int, halve: bool):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, 2 if halve else 1, 0 if halve else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.halve:
            x = F.avg_pool2d(x, 2)
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            # without padding the main path comes out a pixel shorter where the size is even
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        return F.relu(x + y)


class DlibResNet(nn.Module):
    """Chips in [0, 255] to embeddings; the affine layers are folded into the convolutions."""

    mean: Tensor

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        widths = (32, *WIDTHS)
        self.blocks = nn.ModuleList(
            Residual(widths[i], widths[i + 1], i in HALVING) for i in range(len(WIDTHS))
        )
        self.head = nn.Linear(256, 128, bias=False)
        mean = torch.tensor([122.782, 117.001, 104.298]).reshape(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, chips: Float[Tensor, "batch 3 150 150"]) -> Float[Tensor, "batch 128"]:
        x = F.max_pool2d(F.relu(self.stem((chips - self.mean) / 256)), 3, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def similarity_transform(
    source: Float[Tensor, "batch points 2"], target: Float[Tensor, "points 2"]
) -> Float[Tensor, "batch 2 3"]:
    """The turn, scale and shift that bring `source` nearest to `target` (least squares).

    With complex numbers x + iy the fit is one division, so it is differentiable and never mirrors.
    """
    from_mean, to_mean = source.mean(1, keepdim=True), target.mean(0, keepdim=True)
    a = torch.view_as_complex((source - from_mean).contiguous())
    b = torch.view_as_complex((target - to_mean).contiguous())
    m = (a.conj() * b).sum(1) / a.abs().square().sum(1)
    linear = torch.stack([torch.stack([m.real, -m.imag], 1), torch.stack([m.imag, m.real], 1)], 1)
    shift = to_mean.reshape(1, 2, 1) - linear @ from_mean.transpose(1, 2)
    return torch.cat([linear, shift], 2)


def chip_grid(points: Float[Tensor, "batch 5 2"]) -> Float[Tensor, "batch 150 150 2"]:
    """Where each chip pixel lies in the image, for `grid_sample`; points and grid span [-1, 1]."""
    template = (points.new_tensor(TEMPLATE) + PADDING) / (1 + 2 * PADDING) * 2 - 1
    image_to_chip = similarity_transform(points, template)
    whole = torch.cat([image_to_chip, points.new_tensor([[[0.0, 0, 1]]]).expand(len(points), -1, -1)], 1)
    chip_to_image = torch.linalg.inv(whole)[:, :2]
    return F.affine_grid(chip_to_image, [len(points), 3, CHIP, CHIP], align_corners=False)


class Identity(nn.Module):
    """A frozen face-recognition network with its alignment."""

    canonical: Tensor

    def __init__(self, network: DlibResNet):
        super().__init__()
        self.network = network
        self.register_buffer("canonical", canonical_face()[list(FIVE)], persistent=False)

    def chips(
        self,
        images: Float[Tensor, "batch 3 height width"],
        cameras: Float[Tensor, "batch 25"] | None = None,
        points: Float[Tensor, "batch 5 2"] | None = None,
    ) -> Float[Tensor, "batch 3 150 150"]:
        """The aligned faces, in the images' range.

        `points` are the landmarks `FIVE` in [0, 1] of the image; without them the canonical face is
        projected by `cameras`.
        """
        if points is None:
            assert cameras is not None, "the alignment needs cameras or points"
            points = project(self.canonical.expand(len(images), -1, -1), cameras)
        # a face fills about half of the picture: shrink large pictures, or sampling would alias
        factor = max(1, round(images.shape[-1] / 320))
        grid = chip_grid(points.detach() * 2 - 1).to(images)
        return F.grid_sample(F.avg_pool2d(images, factor), grid, padding_mode="border", align_corners=False)

    def embed(
        self,
        images: Float[Tensor, "batch 3 height width"],
        cameras: Float[Tensor, "batch 25"] | None = None,
        points: Float[Tensor, "batch 5 2"] | None = None,
    ) -> Float[Tensor, "batch 128"]:
        """dlib's raw embedding of images in [-1, 1]; differentiable in the images."""
        return self.network((self.chips(images, cameras, points) + 1) * 127.5)


def similarity(a: Float[Tensor, "batch 128"], b: Float[Tensor, "batch 128"]) -> Float[Tensor, " batch"]:
    """1 - distance / 1.2 of embeddings: 1 is the same picture, 0.5 is dlib's limit for one person.

    A distance, because the network was trained for distances: the embeddings share a large common part,
    so that cosines of strangers crowd above 0.9. Photos of one person come out near 0.65 and of two near
    0.3 (mean distances 0.42 and 0.82 over 19 photos of 10 people, with dlib itself). Synthetic heads
    look alike to this network: one head seen from other sides scores 0.81 (0.65 at least), two heads
    0.57 on average but up to 0.75, so compare ranks there and do not take 0.5 for a limit.
    """
    return 1 - (a - b).norm(dim=1) / (2 * SAME_PERSON)


@functools.cache
def load_identity(name: str = "dlib", device: str | torch.device = "cpu") -> Identity:
    """The frozen identity network `name`; there is only "dlib".

    Raises UserError for another name, MissingWeightsError when its file is absent or damaged.
    """
    if name != "dlib":
        raise UserError(f"no identity network called '{name}'; there is dlib")
    network = DlibResNet()
    network.load_state_dict(load_tensors("dlib-resnet")[0])
    return Identity(network).requires_grad_(False).eval().to(device)
