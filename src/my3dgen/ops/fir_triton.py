"""The [1, 3, 3, 1] low-pass filter at stride 1, channels-last, as one kernel (CUDA, Triton).

Twin of the stride-1 case in `my3dgen.ops.fir`. The filter is linear and symmetric, so its adjoint is
itself with another offset: derivatives of any order work.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
@no_type_check  # the compiler reads the function itself
def _filter(
    source, out, source_height, source_width, height, width, offset, gain,
    CHANNELS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    image_row = tl.program_id(0)
    image = (image_row // height).to(tl.int64)
    row = image_row % height
    column = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    channel = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    total = tl.zeros((BLOCK_WIDTH, BLOCK_CHANNELS), tl.float32)
    for i in tl.static_range(4):
        y = row + offset + i
        for j in tl.static_range(4):
            x = column + offset + j
            weight = (3.0 if (i == 1 or i == 2) else 1.0) * (3.0 if (j == 1 or j == 2) else 1.0)
            inside = (y >= 0) & (y < source_height) & (x >= 0) & (x < source_width) & (column < width)
            texel = ((image * source_height + y) * source_width + x) * CHANNELS
            mask = inside[:, None] & (channel < CHANNELS)[None]
            value = tl.load(source + texel[:, None] + channel[None], mask=mask, other=0.0)
            total += weight * value.to(tl.float32)
    place = ((image * height + row) * width + column) * CHANNELS
    tl.store(
        out + place[:, None] + channel[None],
        (total * (gain / 64)).to(out.dtype.element_ty),
        mask=(column < width)[:, None] & (channel < CHANNELS)[None],
    )


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, source: Tensor, offset: int, height: int, width: int, gain: float) -> Tensor:
        source = source.contiguous(memory_format=torch.channels_last)
        images, channels, source_height, source_width = source.shape
        out = torch.empty(
            (images, channels, height, width), device=source.device, dtype=source.dtype,
            memory_format=torch.channels_last,
        )  # fmt: skip
        ctx.adjoint = (-offset - 3, source_height, source_width, gain)
        block_width = min(32, triton.next_power_of_2(width))
        block_channels = min(64, triton.next_power_of_2(channels))
        grid = (images * height, triton.cdiv(width, block_width), triton.cdiv(channels, block_channels))
        _filter[grid](
            source, out, source_height, source_width, height, width, offset, gain,
            channels, block_width, block_channels,
        )  # fmt: skip
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _Filter.apply(gradient, *ctx.adjoint), None, None, None, None


def low_pass_fused(x: Tensor, pad: tuple[int, int], gain: float) -> Tensor:
    """Filter `batch channels height width` with zero padding (before, after) on both axes."""
    before, after = pad
    height = x.shape[2] + before + after - 3
    width = x.shape[3] + before + after - 3
    return _Filter.apply(x, -before, height, width, gain)
