"""Perceptual distance: how different two pictures look to an image classifier.

The distance is the sum over stages of the mean squared difference of channel-normalised features
(Zhang et al. 2018, equation 1, without learned channel weights). The numbers carry our own names,
because they are made with other networks than the published metrics of this kind:

- `squeeze-feat`: SqueezeNet 1.1, seven stages. Fast; this one serves in losses.
- `lite0-feat`: EfficientNet-Lite0, five stages. This one serves in metrics only, so that a result
  is never judged by the network it was optimised against.

Changes of tone score low, of geometry more, noise and lost detail most, as people would say.
"""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from my3dgen.errors import UserError
from my3dgen.ops.conv_relu import conv_relu
from my3dgen.ops.low_pass import HAS_TRITON
from my3dgen.weights.networks import load_tensors


class Fire(nn.Module):
    """Squeeze to few channels, then expand by 1x1 and 3x3 in parallel (Iandola et al. 2016)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.both: nn.Conv2d | None = None
        """The two expansions as one convolution, where that is faster (`join`)."""

    def join(self) -> None:
        """From here on expand in one convolution: more products, but no pass that joins two results."""
        one, three = self.expand1, self.expand3
        both = nn.Conv2d(three.in_channels, 2 * three.out_channels, 3, padding=1).to(three.weight)
        assert one.bias is not None and three.bias is not None and both.bias is not None
        with torch.no_grad():
            both.weight.copy_(torch.cat([F.pad(one.weight, (1, 1, 1, 1)), three.weight]))
            both.bias.copy_(torch.cat([one.bias, three.bias]))
        self.both = both.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = conv_relu(x, self.squeeze)
        if self.both is not None:
            return conv_relu(x, self.both)
        return torch.cat([conv_relu(x, self.expand1), conv_relu(x, self.expand3)], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 up to fire9. Its weights expect BGR from 0 to 255 minus the ImageNet mean."""

    mean: Tensor

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        sizes = [(64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)]
        sizes += [(256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)]
        for i, size in enumerate(sizes, start=2):
            setattr(self, f"fire{i}", Fire(*size))
        mean = torch.tensor([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Features after conv1 and fire 3, 5, 6, 7, 8, 9 of images in [-1, 1]."""
        x = (image.flip(1) + 1) * 127.5 - self.mean
        x = conv_relu(F.pad(x, (0, 1, 0, 1)), self.conv1)
        features = [x]
        for i in range(2, 10):
            if i in (2, 4, 6):
                x = F.max_pool2d(x, 3, 2)
            x = getattr(self, f"fire{i}")(x)
            if i not in (2, 4):
                features.append(x)
        return features


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME padding: the odd pixel goes to the right and the bottom."""
    sides = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides) if any(sides) else x


class Inverted(nn.Module):
    """An inverted residual block: expand, depthwise, project (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        width = inputs * expansion
        self.expand = nn.Conv2d(inputs, width, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(width, width, kernel, stride, groups=width)
        self.project = nn.Conv2d(width, outputs, 1)
        self.kernel, self.stride = kernel, stride
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = F.relu6(self.depthwise(pad_same(y, self.kernel, self.stride)))
        y = self.project(y)
        return x + y if self.residual else y


LITE0_STAGES = (  # blocks, inputs, outputs, expansion, kernel, stride
    (1, 32, 16, 1, 3, 1),
    (2, 16, 24, 6, 3, 2),
    (2, 24, 40, 6, 5, 2),
    (3, 40, 80, 6, 3, 2),
    (3, 80, 112, 6, 5, 1),
    (4, 112, 192, 6, 5, 2),
    (1, 192, 320, 6, 3, 1),
)


class EfficientNetLite0(nn.Module):
    """The trunk of EfficientNet-Lite0 with batch norms folded into the convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2)
        blocks = []
        for count, inputs, outputs, expansion, kernel, stride in LITE0_STAGES:
            blocks.append(Inverted(inputs, outputs, expansion, kernel, stride))
            blocks += [Inverted(outputs, outputs, expansion, kernel, 1) for _ in range(count - 1)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """The last features at strides 2, 4, 8, 16 and 32 (16, 24, 40, 112, 320 channels)."""
        x = ((image + 1) * 127.5 - 127) / 128
        x = F.relu6(self.stem(pad_same(x, 3, 2)))
        features = []
        for block in self.blocks:
            if block.stride == 2:
                features.append(x)
            x = block(x)
        return [*features, x]


def stage_distance(a: Tensor, b: Tensor, rows: Int[Tensor, " batch"] | None = None) -> Tensor:
    """Mean over pixels of |a/|a| - b/|b||^2, written with dot products: no normalised copies are made.

    With `rows` every a is compared with its row of `b`.

    On CUDA all is one kernel, with first derivatives only, in float32.
    """
    if a.is_cuda and HAS_TRITON:
        from my3dgen.ops.distance_triton import stage_distance_fused

        return stage_distance_fused(a, b, rows)
    b = b if rows is None else b.index_select(0, rows)
    aa, bb, ab = a.square().sum(1), b.square().sum(1), (a * b).sum(1)
    ra, rb = torch.rsqrt(aa + 1e-10), torch.rsqrt(bb + 1e-10)
    return (aa * ra * ra + bb * rb * rb - 2 * ab * ra * rb).mean((1, 2))


class Perceptual(nn.Module):
    """A frozen classifier as a distance between pictures."""

    def __init__(self, name: str, trunk: nn.Module):
        super().__init__()
        self.name = name
        self.trunk = trunk

    def forward(
        self, a: Float[Tensor, "batch 3 height width"], b: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, " batch"]:
        """Distance of each pair of images in [-1, 1]; 0 is equal. Differentiable in both."""
        return self.distance(self.features(a), self.features(b))

    def features(self, image: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Features of every stage; keep those of a target that does not change."""
        # channels_last halves the time on CPUs
        return self.trunk(image.contiguous(memory_format=torch.channels_last))

    def distance(
        self, a: Sequence[Tensor], b: Sequence[Tensor], rows: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """Distance from features. Either batch may be 1 and is then compared with every other; or `b` are of
        any number of pictures, and `rows` says with which of them each of `a` is compared."""
        return torch.stack([stage_distance(p, q, rows) for p, q in zip(a, b, strict=True)]).sum(0)

    def pooled(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels"]:
        """The deepest stage averaged over the picture: features for KID."""
        return self.features(image)[-1].mean((2, 3))


TRUNKS = {
    "squeeze-feat": (SqueezeNet, "squeezenet-1.1"),
    "lite0-feat": (EfficientNetLite0, "efficientnet-lite0"),
}


@functools.cache
def load_perceptual(name: str, device: str | torch.device = "cpu") -> Perceptual:
    """The frozen network `name`: "squeeze-feat" for losses, "lite0-feat" for metrics.

    Raises UserError for another name, MissingWeightsError when its file is absent or damaged.
    """
    if name not in TRUNKS:
        raise UserError(f"no perceptual network called '{name}'; there are {', '.join(TRUNKS)}")
    kind, file = TRUNKS[name]
    trunk = kind()
    trunk.load_state_dict(load_tensors(file)[0])
    network = Perceptual(name, trunk).requires_grad_(False).eval()
    network = network.to(device)
    if torch.device(device).type == "cuda":
        for part in network.modules():
            if isinstance(part, Fire):
                part.join()
    # torch's stubs lack this call
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
