"""Volume rendering of tri-planes in five kernels: three forward, two backward (CUDA, Triton).

Twin of `my3dgen.prior.render` with the field of `my3dgen.prior.generator`. A program holds a strip of rays
and walks along them together; features, hidden units and colours of a sample live and die in registers,
and only scalars of a sample (depth, density, weight) are ever written.

    coarse_densities  of the stratified samples
    merged_depths     fine samples by importance, in order with the coarse ones
    composite         all samples again, front to back: colours, opacity, moment of the depth
    through_march     backward: every sample's weight, and the gradient of its density
    through_field     backward: through the decoder into its weights and, scattered, into the planes

Samples are laid out `image sample ray`, so that neighbouring rays read neighbouring numbers. Planes are
packed channels last in the precision of the lookups; sums, marching and gradients are float32. The planes'
gradient is scattered with atomics, hence its last bits vary from run to run.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from my3dgen.ops.fused_render import Perceptron, Tuning
from my3dgen.ops.render_backward_triton import through_field, through_march
from my3dgen.ops.render_forward_triton import coarse_densities, composite, merged_depths

PAIRS_PER_PROGRAM = 128 * 128
"""Pairs of a coarse and a fine sample that a program compares, over all its rays."""
LN2, LOG2E = math.log(2), 1 / math.log(2)


class Options(NamedTuple):
    """What is no tensor."""

    fine: int
    """Samples by importance; 0 for a single pass."""
    three: bool
    """Whether the third plane is looked up; if not, it repeats the second transposed."""
    scale: float
    """From world units to the planes' [-1, 1]."""
    dtype: torch.dtype
    """Precision of texels and of the decoder's inputs and hidden units."""
    tuning: Tuning


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, planes: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, b_out: Tensor,
        origins: Tensor, directions: Tensor, depths: Tensor, quantiles: Tensor | None, options: Options,
    ):  # fmt: skip
        scene = _Scene(
            packed=_pack(planes, options),
            origins=origins,
            directions=directions,
            # hidden units and logits are in units of ln 2, because the device knows 2^x; features are sums
            w_in=(w_in.mT * (LOG2E / 3)).to(options.dtype).contiguous(),
            b_in=b_in * LOG2E,
            w_density=w_out[0] * LN2,
            b_density=b_out[:1].contiguous(),
            w_colour=w_out[1:].mT.to(options.dtype).contiguous(),
            b_colour=b_out[1:] * LOG2E,
        )
        if options.fine:
            depths = _refined(scene, depths, quantiles, options)
        found = _composited(scene, depths, options)
        ctx.save_for_backward(*scene, depths, *found)
        ctx.options = options
        ctx.mark_non_differentiable(depths)
        return *found, depths

    @staticmethod
    @once_differentiable
    def backward(ctx, by_colours: Tensor, by_opacity: Tensor, by_moment: Tensor, _: Tensor):
        scene, (depths, colours, opacity, moment) = _Scene(*ctx.saved_tensors[:9]), ctx.saved_tensors[9:]
        by_colours, by_opacity, by_moment = (
            x.float().contiguous() for x in (by_colours, by_opacity, by_moment)
        )
        totals = (by_colours * colours).sum(-1) + by_opacity * opacity + by_moment * moment
        weights, by_densities = torch.empty_like(depths), torch.empty_like(depths)
        common = scene.sizes(depths, ctx.options)
        through_march[scene.grid(ctx.options)](
            *scene.inputs(depths), scene.w_colour, scene.b_colour, by_colours, by_opacity, by_moment, totals,
            weights, by_densities, **common, COLOURS=scene.b_colour.numel(),
        )  # fmt: skip
        by_planes, *by_decoder = (
            torch.zeros(x.shape, device=depths.device)
            for x in (scene.packed, scene.w_in, scene.b_in, scene.w_density, scene.b_density,
                      scene.w_colour, scene.b_colour)
        )  # fmt: skip
        to_decoder = any(ctx.needs_input_grad[1:5])
        through_field[scene.grid(ctx.options, depths)](
            scene.packed, scene.origins, scene.directions, depths, scene.w_in, scene.b_in, scene.w_density,
            scene.w_colour, scene.b_colour, by_colours, weights, by_densities, by_planes, *by_decoder,
            **common, COLOURS=scene.b_colour.numel(), CHUNK=ctx.options.tuning.chunk,
            TO_PLANES=ctx.needs_input_grad[0], TO_DECODER=to_decoder,
        )  # fmt: skip
        return (
            _unpack(by_planes) if ctx.needs_input_grad[0] else None,
            *(_decoder_gradients(*by_decoder) if to_decoder else [None] * 4),
            *[None] * 5,
        )


class _Scene(NamedTuple):
    """The inputs of the kernels, as they read them."""

    packed: Tensor
    origins: Tensor
    directions: Tensor
    w_in: Tensor
    b_in: Tensor
    w_density: Tensor
    b_density: Tensor
    w_colour: Tensor
    b_colour: Tensor

    def inputs(self, depths: Tensor) -> tuple[Tensor, ...]:
        """What every kernel that asks for densities takes first."""
        return (
            self.packed, self.origins, self.directions, depths,
            self.w_in, self.b_in, self.w_density, self.b_density,
        )  # fmt: skip

    def sizes(self, depths: Tensor, options: Options) -> dict[str, Any]:
        """Arguments that all kernels that look into the planes share."""
        shared = len(self.packed) == 1
        return {
            "rays": depths.shape[2],
            "SAMPLES": depths.shape[1],
            "planes_stride": 0 if shared else self.packed[0].numel(),
            "scale": options.scale,
            "SIDE": self.packed.shape[2],
            "FEATURES": self.packed.shape[4],
            "HIDDEN": self.b_in.numel(),
            "THREE": options.three,
            "PRECISION": "tf32x3" if options.dtype == torch.float32 else "tf32",  # bfloat16 ignores it
            "RAYS": options.tuning.rays,
            "num_warps": options.tuning.warps,
            "num_stages": options.tuning.stages,
        }

    def grid(self, options: Options, chunked: Tensor | None = None) -> tuple[int, ...]:
        """Programs: strips of rays, chunks of samples if they are independent, images."""
        images, rays, _ = self.origins.shape
        strips = triton.cdiv(rays, options.tuning.rays)
        if chunked is None:
            return strips, images
        return strips, triton.cdiv(chunked.shape[1], options.tuning.chunk), images


def _pack(planes: Tensor, options: Options) -> Tensor:
    """`image plane row column feature`; two planes are enough where the third repeats the second."""
    first, second, third = planes.unbind(1)
    parts = [first, second, third] if options.three else [first, second + third.mT]
    images, features, side, _ = first.shape
    shape = images, len(parts), side, side, features
    packed = torch.empty(shape, device=planes.device, dtype=options.dtype)
    for i, part in enumerate(parts):
        packed[:, i].copy_(part.permute(0, 2, 3, 1))
    return packed


def _unpack(by_packed: Tensor) -> Tensor:
    """The gradient of the planes from that of the packed ones."""
    parts = by_packed.permute(0, 1, 4, 2, 3).unbind(1)
    return torch.stack([*parts, parts[1].mT] if len(parts) == 2 else parts, 1)


def _decoder_gradients(
    by_w_in: Tensor, by_b_in: Tensor, by_w_density: Tensor, by_b_density: Tensor,
    by_w_colour: Tensor, by_b_colour: Tensor,
) -> list[Tensor]:  # fmt: skip
    return [
        by_w_in.mT / 3,
        by_b_in,
        torch.cat([by_w_density[None], by_w_colour.mT]) * LN2,
        torch.cat([by_b_density, by_b_colour]),
    ]


def _refined(scene: _Scene, depths: Tensor, quantiles: Tensor | None, options: Options) -> Tensor:
    """Depths of all samples in order, `image sample ray`."""
    images, coarse, rays = depths.shape
    densities = torch.empty_like(depths)
    coarse_densities[scene.grid(options, depths)](
        *scene.inputs(depths), densities, **scene.sizes(depths, options), CHUNK=options.tuning.chunk
    )
    merged = torch.empty(images, coarse + options.fine, rays, device=depths.device)
    blocks = triton.next_power_of_2(coarse), triton.next_power_of_2(options.fine)
    rows = max(1, PAIRS_PER_PROGRAM // (blocks[0] * blocks[1]))
    merged_depths[(triton.cdiv(rays, rows), images)](
        depths, densities, depths if quantiles is None else quantiles, merged, rays, coarse, options.fine,
        *blocks, rows, quantiles is not None,
    )  # fmt: skip
    return merged


def _composited(scene: _Scene, depths: Tensor, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    images, _, rays = depths.shape
    colours = torch.empty(images, rays, scene.b_colour.numel(), device=depths.device)
    opacity, moment = (torch.empty(images, rays, device=depths.device) for _ in range(2))
    composite[scene.grid(options)](
        *scene.inputs(depths), scene.w_colour, scene.b_colour, colours, opacity, moment,
        **scene.sizes(depths, options), COLOURS=colours.shape[2],
    )  # fmt: skip
    return colours, opacity, moment


def render_fused(
    planes: Tensor,
    decoder: Perceptron,
    origins: Tensor,
    directions: Tensor,
    depths: Tensor,
    quantiles: Tensor | None,
    options: Options,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(sum of weighted colours `batch rays colours`, opacity `batch rays`, sum of weighted depths
    `batch rays`, depths of all samples in order `batch samples rays`), in float32.

    The arguments are those of `my3dgen.ops.fused_render.FusedField.render`.
    """
    return _Render.apply(
        planes,
        *(x.float() for x in decoder),
        origins.float().contiguous(),
        directions.float().contiguous(),
        depths.float().mT.contiguous(),
        None if quantiles is None else quantiles.float().contiguous(),
        options,
    )
