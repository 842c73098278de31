"""Short hair on the moving face: brows, lashes and beard. One fixed set of strands for every head."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from my3dgen.synthetic.asset import HeadAsset
from my3dgen.synthetic.factors import block
from my3dgen.synthetic.noise import common_normal, common_random, smoothstep
from my3dgen.synthetic.skin import Regions

NODES = 5


@dataclass(frozen=True)
class Roots:
    """Places on the average head's skin where strands may grow, with their random numbers."""

    corner: Int[Tensor, "strand 3"]
    weight: Float[Tensor, "strand 3"]
    canonical: Float[Tensor, "strand 3"]
    own: Float[Tensor, "strand 6"]
    order: Float[Tensor, " strand"]
    """Uniform numbers: who appears first where hair is thin."""

    def on(self, values: Float[Tensor, "*scene vertex channel"]) -> Float[Tensor, "*scene strand channel"]:
        """Values of the skin's vertices at the roots."""
        return (values[..., self.corner, :] * self.weight[..., None]).sum(-2)


def scatter_roots(asset: HeadAsset, where: Float[Tensor, " vertex"], count: int, seed: int) -> Roots:
    """`count` roots spread over the average head in proportion to a mask."""
    points, corners = asset.template.cpu(), asset.triangles.cpu()
    edge = points[corners[:, 1:]] - points[corners[:, :1]]
    area = torch.linalg.cross(edge[:, 0], edge[:, 1]).norm(dim=1) * where.cpu()[corners].mean(1)
    rng = torch.Generator().manual_seed(seed)
    face = torch.multinomial(area, count, replacement=True, generator=rng)
    fold = torch.rand(count, 2, generator=rng)
    fold = torch.where(fold.sum(1, keepdim=True) > 1, 1 - fold, fold)
    weight = torch.cat([1 - fold.sum(1, keepdim=True), fold], 1)
    corner = corners[face]
    canonical = (points[corner] * weight[..., None]).sum(1)
    parts = (
        corner,
        weight,
        canonical,
        common_normal(count, 6, seed=seed + 1),
        common_random(count, seed=seed + 2),
    )
    return Roots(*(part.to(asset.device) for part in parts))


@dataclass(frozen=True)
class Brows:
    """The shape of the brows, each `scene`."""

    height: Tensor
    arch: Tensor
    thickness: Tensor
    darkness: Tensor
    density: Tensor


def brow_shape(factors: Float[Tensor, "scene factors"], male: Float[Tensor, " scene"]) -> Brows:
    """Decode the brow block."""
    f = {name: torch.tanh(0.6 * value) * 1.5 for name, value in block(factors, "brow").items()}
    return Brows(
        height=0.158 + 0.010 * f["height"] - 0.012 * male,
        arch=0.058 + 0.018 * f["arch"] - 0.010 * male,
        thickness=0.024 + 0.006 * f["thickness"] + 0.008 * male,
        darkness=torch.sigmoid(0.9 * f["darkness"] + 0.5),
        density=(0.78 + 0.16 * f["density"]).clamp(0.4, 1.0),
    )


def brow_place(x: Tensor, eye: Float[Tensor, "3"]) -> Tensor:
    """0 at the inner end of a brow, 1 at the outer."""
    return (x.abs() - (eye[0] - 0.215)) / 0.43


def brow_mask(
    canonical: Float[Tensor, "... 3"],
    eye: Float[Tensor, "3"],
    height: Tensor,
    arch: Tensor,
    thickness: Tensor,
) -> Tensor:
    """How much brow there is at canonical points, in [0, 1]; the shape broadcasts against the points."""
    x, y, z = canonical.unbind(-1)
    t = brow_place(x, eye)
    middle = (
        eye[1]
        + height
        + arch * torch.sin(torch.pi * (0.9 * t).clamp(0, 1))
        - 0.03 * smoothstep(t, 0.75, 1.15)
    )
    width = thickness * (1 - 0.60 * smoothstep(t, 0.40, 1.05))
    # flat in the middle, softer above than below, as hair lying upwards makes it
    off = (y - middle) / width
    soft = torch.exp(-0.5 * off.abs() ** 2.6)
    return soft * smoothstep(t, -0.07, 0.12) * (1 - smoothstep(t, 0.90, 1.12)) * smoothstep(z, 0.7, 1.0)


@dataclass(frozen=True)
class Facial:
    """Strands on the expressed face, decimetres, and their colour."""

    nodes: Float[Tensor, "scene strand node 3"]
    colour: Float[Tensor, "scene strand 3"]


def grow(
    root: Tensor, direction: Tensor, bend: Tensor, length: Tensor, nodes: int = NODES
) -> Float[Tensor, "scene strand node 3"]:
    """Poly-lines from roots: `direction` turns by `bend` at each node; `length` is the whole strand's."""
    at, line = root, [root]
    for _ in range(nodes - 1):
        at = at + F.normalize(direction, dim=-1) * (length / (nodes - 1))[..., None]
        direction = direction + bend
        line.append(at)
    return torch.stack(line, 2)


def grow_brows(
    roots: Roots, brows: Brows, eye: Float[Tensor, "3"], skin: Float[Tensor, "scene vertex 3"],
    normals: Float[Tensor, "scene vertex 3"], hair: Float[Tensor, "scene 3"],
) -> Facial:  # fmt: skip
    """Brow hairs over the painted brow: they break its edge and catch the light."""
    root, normal = roots.on(skin), roots.on(normals)
    mask = brow_mask(roots.canonical, eye, *(q[:, None] for q in (brows.height, brows.arch, brows.thickness)))
    there = smoothstep(mask * brows.density[:, None] - 0.75 * roots.order, 0.0, 0.2)
    own = roots.own
    side = torch.sign(roots.canonical[:, 0])
    t = brow_place(roots.canonical[:, 0], eye).clamp(0, 1)
    direction = (
        torch.stack(
            [side * (0.45 + 1.1 * t), 0.75 * (1 - t) - 0.32 * t + 0.1 * own[:, 2], 0.25 - 0.5 * t], -1
        )
        + 0.10 * own[:, 3:6]
    )
    direction = direction + 0.16 * normal
    zero = torch.zeros_like(t)
    bend = torch.stack([side * 0.08, zero - 0.05, zero - 0.08], -1)
    length = 0.062 * (1 + 0.18 * own[:, 0]).clamp(0.6, 1.4) * (1 - 0.25 * t) * there
    colour = brow_colour(brows, hair)[:, None] * (1 + 0.15 * own[:, 1:2]).clamp(0.6, 1.4)
    return Facial(grow(root, direction, bend, length), colour)


def brow_colour(brows: Brows, hair: Float[Tensor, "scene 3"]) -> Float[Tensor, "scene 3"]:
    """Brows are darker than the hair, more so for fair people."""
    return hair * (1 - 0.35 * brows.darkness)[:, None] + 0.012


@dataclass(frozen=True)
class Beard:
    """Beard of each scene: paint (0 to 1) per vertex and strand length at roots."""

    shadow: Float[Tensor, "scene vertex"]
    length: Tensor
    moustache: Tensor
    full: Tensor
    thick: Tensor


def beard_style(
    factors: Float[Tensor, "scene factors"], male: Float[Tensor, " scene"], where: Regions
) -> Beard:
    """Decode the beard block; from clean shaven over stubble to a full beard without a jump."""
    f = block(factors, "beard")
    u = {name: torch.special.ndtr(value) for name, value in f.items()}
    grown = male * u["amount"]
    thick = smoothstep(grown, 0.55, 0.80)
    full = smoothstep(u["shape"], 0.15, 0.55)
    moustache = 0.35 + 0.65 * u["moustache"]
    area = torch.maximum(full[:, None] * where.beard, where.goatee)
    area = torch.maximum(area, moustache[:, None] * where.moustache)
    shaved = 0.26 * smoothstep(male, 0.3, 1.0)[:, None] * torch.maximum(where.beard, 0.9 * where.moustache)
    stubble = 0.55 * smoothstep(grown, 0.30, 0.62)[:, None] * area
    return Beard(
        shadow=torch.maximum(
            shaved * (0.35 + 0.65 * grown)[:, None], torch.maximum(stubble, 0.8 * thick[:, None] * area)
        ),
        length=thick * (0.035 + 0.09 * u["length"] ** 1.5),
        moustache=moustache,
        full=full,
        thick=thick,
    )


def grow_beard(
    roots: Roots, beard: Beard, where: Regions, mouth: Float[Tensor, "3"],
    skin: Float[Tensor, "scene vertex 3"], normals: Float[Tensor, "scene vertex 3"],
    hair: Float[Tensor, "scene 3"],
) -> Facial:  # fmt: skip
    """Beard and moustache strands."""
    root, normal = roots.on(skin), roots.on(normals)
    masks = roots.on(torch.stack([where.beard, where.goatee, where.moustache], -1))
    area = torch.maximum(beard.full[:, None] * masks[:, 0], masks[:, 1])
    area = torch.maximum(area, beard.moustache[:, None] * masks[:, 2])
    there = smoothstep(area * (0.4 + 0.8 * beard.thick[:, None]) - roots.order, 0.0, 0.3)
    own, side = roots.own, torch.tanh(12 * roots.canonical[:, 0])
    above = (roots.canonical[:, 1] > mouth[1]).float()
    down = torch.stack(
        [
            side * (0.45 * above - 0.15 * (1 - above)),
            torch.full_like(side, -1.0),
            torch.full_like(side, 0.15),
        ],
        -1,
    )
    flat = down - (down * normal).sum(-1, keepdim=True) * normal * 0.85
    direction = flat + 0.34 * normal + 0.16 * own[:, 3:6]
    bend = torch.stack([0.06 * own[:, 1], -0.12 + 0 * side, 0.06 * own[:, 2]], -1)
    lip = 1 - 0.45 * above
    length = beard.length[:, None] * lip * (1 + 0.22 * own[:, 0]).clamp(0.5, 1.5) * there
    colour = (hair * hair.new_tensor([1.0, 0.95, 0.92]))[:, None] * (1 + 0.2 * own[:, 1:2]).clamp(0.5, 1.6)
    return Facial(grow(root, direction, bend, length), colour)


def grow_lashes(
    strips: Float[Tensor, "scene lash 4 3"], upper: Float[Tensor, " lash"],
    factors: Float[Tensor, "scene factors"], each: int = 4,
) -> Facial:  # fmt: skip
    """`each` lashes per quad of the strips, from root to part of the way to the tip."""
    f = block(factors, "lash")
    scenes, quads = strips.shape[:2]
    u = common_random(quads, each, 1, seed=71, device=strips.device)
    inner, outer = strips[:, :, None, :2], strips[:, :, None, 2:]
    root = inner[..., 0, :] * (1 - u) + inner[..., 1, :] * u
    tip = outer[..., 0, :] * (1 - u) + outer[..., 1, :] * u
    reach = (0.34 + 0.24 * upper)[:, None] * (
        1 + 0.12 * common_normal(quads, each, seed=72, device=strips.device)
    )
    reach = reach * (1 + 0.22 * torch.tanh(f["length"]))[:, None, None]
    order = common_random(quads, each, seed=73, device=strips.device)
    share = (0.30 + 0.55 * upper)[:, None] + (0.18 * torch.tanh(f["density"]))[:, None, None]
    there = smoothstep(share - order, 0.0, 0.2)
    t = torch.linspace(0, 1, NODES, device=strips.device)[:, None]
    line = root[..., None, :] + ((tip - root) * (reach * there)[..., None])[..., None, :] * t
    dark = strips.new_tensor([0.016, 0.012, 0.010])
    nodes = line.reshape(scenes, -1, NODES, 3)
    return Facial(nodes, dark.expand(scenes, nodes.shape[1], 3))
