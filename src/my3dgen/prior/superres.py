"""From the volume-rendered features to the final image (EG3D spec 1.14)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from my3dgen.config import PriorConfig
from my3dgen.ops.fir import lowpass_filter
from my3dgen.prior.adaptation import Adaptation
from my3dgen.prior.synthesis import SynthesisBlock


class Superresolution(nn.Module):
    """Two synthesis blocks driven by the last style vector."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        layout = config.superresolution_layout
        self.input_resolution, self.resizes_down = layout.input_resolution, layout.resizes_down
        self.antialias, self.noise = config.superresolution_antialias, config.superresolution_noise_mode
        inputs, resolution = config.render_features, layout.input_resolution
        for i, (outputs, up) in enumerate(
            zip(layout.channels, (layout.first_block_upsamples, True), strict=True)
        ):
            resolution *= 2 if up else 1
            block = SynthesisBlock(
                inputs, outputs, 3, config.w_dim, resolution, up=up, clamp=config.superresolution_clamp
            )
            self.add_module(f"block{i}", block)
            inputs = outputs
        if layout.owns_filter:  # unused, but part of these layouts' state dicts
            self.register_buffer("resample_filter", lowpass_filter())

    def forward(
        self,
        features: Float[Tensor, "batch features r r"],
        w: Float[Tensor, "styles w_dim"],
        change: Adaptation,
        rng: torch.Generator | None,
        dtype: torch.dtype,
        resolution: int | None = None,
    ) -> Float[Tensor, "batch 3 size size"]:
        """The final image from rendered features, whose first three channels are the raw image.

        `resolution` is the side of the first block's input, if not the layout's: features of a window
        of the picture take its share. Constant noise belongs to the whole picture and does not fit one.
        """
        side, resolution = features.shape[-1], resolution or self.input_resolution
        if side < resolution or (side > resolution and self.resizes_down):
            features = F.interpolate(
                features,
                size=(resolution, resolution),
                mode="bilinear",
                align_corners=False,
                antialias=self.antialias,
            )
        x, image = features.contiguous(memory_format=torch.channels_last), features[:, :3]
        ws = w[:, None].expand(-1, 3, -1)
        # mode 'random' without a generator would not be repeatable
        noise = "const" if self.noise == "random" and rng is None else self.noise
        for i in (0, 1):
            block = self.get_submodule(f"block{i}")
            x, image = block(x, image, ws, change.at(f"block{i}"), noise, rng, dtype)
        return image
