"""From style vectors to feature planes: StyleGAN2's layers and skip architecture (EG3D spec 1.4, 1.5)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from my3dgen.config import NoiseMode, PriorConfig
from my3dgen.ops.dense import dense
from my3dgen.ops.fir import lowpass_filter
from my3dgen.ops.modulated_conv import modulated_conv2d, modulated_layer
from my3dgen.ops.skip import add_skip
from my3dgen.prior.adaptation import Adaptation
from my3dgen.prior.mapping import Dense

Features = Float[Tensor, "batch inputs height width"]
NewFeatures = Float[Tensor, "batch outputs new_height new_width"]
Image = Float[Tensor, "batch colours height width"]
NewImage = Float[Tensor, "batch colours new_height new_width"]
Style = Float[Tensor, "styles w_dim"]  # one per image, or one for all


class Affine(Dense):
    """Style vector to one scale per input channel."""

    def styles(self, w: Style, change: Adaptation) -> Float[Tensor, "styles inputs"]:
        """The scales, with the adapter's change added after the gain."""
        bias = change.shifted("bias", self.bias)
        return dense(w, self.weight, bias, change=change.low_rank("weight"))


class SynthesisLayer(nn.Module):
    """A modulated 3x3 convolution with noise, bias and leaky ReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, *, up: bool, clamp: float | None
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.clamp = resolution, up, clamp
        self.affine = Affine(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.noise_strength = nn.Parameter(torch.empty(()))
        self.register_buffer("noise_const", torch.empty(resolution, resolution))
        self.register_buffer("resample_filter", lowpass_filter())

    def forward(
        self,
        x: Features,
        w: Style,
        change: Adaptation,
        noise: NoiseMode,
        rng: torch.Generator | None,
        *,
        fresh: bool = False,
    ) -> NewFeatures:
        """Features at the layer's resolution, in the dtype of `x`; `fresh` as in `modulated_layer`."""
        styles, bias = self.affine.styles(w, change.at("affine")), change.shifted("bias", self.bias)
        added = None
        if noise != "none":
            strength = change.shifted("noise_strength", self.noise_strength).reshape(-1, 1, 1, 1)
            added = strength * self._noise(len(x), noise, rng)
        return modulated_layer(
            x,
            self.weight,
            styles,
            bias,
            noise=added,
            upsample=self.up,
            change=change.low_rank("weight"),
            clamp=self.clamp,
            fresh=fresh,
        )

    def _noise(self, batch: int, noise: NoiseMode, rng: torch.Generator | None) -> Tensor:
        if noise == "const":
            return self.noise_const
        if rng is None:
            raise ValueError("noise 'random' needs a torch.Generator")
        shape = (batch, 1, self.resolution, self.resolution)
        return torch.randn(shape, generator=rng, device=rng.device).to(self.noise_const.device)


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to image or plane channels.

    Its bias and its bound are applied where the result is added to the image.
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = Affine(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Features, w: Style, change: Adaptation) -> Image:
        """Image channels at the resolution and in the dtype of `x`, without the bias."""
        styles = self.affine.styles(w, change.at("affine")) / math.sqrt(self.weight.shape[1])
        return modulated_conv2d(x, self.weight, styles, demodulate=False, change=change.low_rank("weight"))


class SynthesisBlock(nn.Module):
    """Two layers at one resolution and their contribution to the image.

    With `inputs` None the block starts from a learned constant and has no `conv0`.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int | None,
        outputs: int,
        image_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up = up
        if inputs is None:
            self.const = nn.Parameter(torch.empty(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, up=up, clamp=clamp)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, up=False, clamp=clamp)
        self.torgb = ToRGB(outputs, image_channels, w_dim, clamp=clamp)
        self.register_buffer("resample_filter", lowpass_filter())

    def forward(
        self,
        x: Features | None,
        image: Image | None,
        ws: Float[Tensor, "styles layers w_dim"],
        change: Adaptation,
        noise: NoiseMode,
        rng: torch.Generator | None,
        dtype: torch.dtype,
    ) -> tuple[NewFeatures, NewImage]:
        """(features, image); `ws` holds the vectors of conv0 (if any), conv1 and toRGB in order.

        Features are computed in `dtype`, the image is accumulated in float32.
        """
        layers = iter(ws.unbind(1))
        if x is None:
            const = change.shifted("const", self.const).to(dtype)
            start = const if const.ndim == 4 else const.expand(len(ws), -1, -1, -1)
            start = start.contiguous(memory_format=torch.channels_last)
        else:
            start = self.conv0(x.to(dtype), next(layers), change.at("conv0"), noise, rng)
        fresh = x is not None  # what conv0 made is for conv1 alone
        features = self.conv1(start, next(layers), change.at("conv1"), noise, rng, fresh=fresh)
        del start
        contribution = self.torgb(features, next(layers), change.at("torgb"))
        bias = change.at("torgb").shifted("bias", self.torgb.bias)
        return features, add_skip(image, contribution, bias, self.torgb.clamp, up=self.up)


class SynthesisNetwork(nn.Module):
    """The backbone: blocks from 4x4 to the planes' resolution."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.resolutions = config.block_resolutions
        inputs = None
        for resolution in self.resolutions:
            outputs = config.channels(resolution)
            block = SynthesisBlock(
                inputs,
                outputs,
                3 * config.plane_features,
                config.w_dim,
                resolution,
                clamp=config.conv_clamp,
            )
            self.add_module(f"b{resolution}", block)
            inputs = outputs

    def forward(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        change: Adaptation,
        noise: NoiseMode,
        rng: torch.Generator | None,
        dtype: torch.dtype,
    ) -> Image:
        """The stacked planes, `batch 3*features side side`."""
        x = image = None
        first = 0
        for resolution in self.resolutions:
            # a block's toRGB shares its vector with the next block's conv0
            layers = 2 if x is None else 3
            block = self.get_submodule(f"b{resolution}")
            block_ws = ws[:, first : first + layers]
            x, image = block(x, image, block_ws, change.at(f"b{resolution}"), noise, rng, dtype)
            first += layers - 1
        assert image is not None
        return image
