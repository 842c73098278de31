"""Pictures of scenes: rasterise, shade, filter, tone-map; all views of all scenes in one pass."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from my3dgen.synthetic import rasterise
from my3dgen.synthetic.scene import EYE, Scenes, StrandSet
from my3dgen.synthetic.shade import EYE_PART, HAIR, shade_eyes, shade_strands, shade_surface

DEPTH_SIZE = 64


@dataclass(frozen=True)
class Views:
    """Pictures on white, and what is known exactly about each pixel."""

    rgb: UInt8[Tensor, "scene view 3 size size"]
    alpha: UInt8[Tensor, "scene view size size"]
    depth: Float[Tensor, "scene view 64 64"]
    """float16: distance from the camera along the ray, mean over the covered part of the cell; 0 if empty."""
    parts: UInt8[Tensor, "scene view size size"]
    """0 background, 1 skin, 2 hair, 3 eye, 4 teeth and mouth, 5 cloth, 6 glasses, 7 lips, 8 brows."""


@dataclass(frozen=True)
class _Rays:
    """Pinhole cameras, one per view."""

    origin: Float[Tensor, "view 3"]
    rotation: Float[Tensor, "view 3 3"]
    focal: Float[Tensor, "view 2"]
    centre: Float[Tensor, "view 2"]

    def project(self, points: Float[Tensor, "view *point 3"], size: int) -> Tensor:
        """Pixels (x right, y down) and depth."""
        # plain products, not a matrix product: that may run in TF32, which is too coarse for a z-buffer
        shape = (-1, *[1] * (points.dim() - 2))
        x, y, z = (points - self.origin.view(*shape, 3)).unbind(-1)
        axes = self.rotation.reshape(-1, 9, *shape[1:]).unbind(1)
        turned = [x * axes[i] + y * axes[3 + i] + z * axes[6 + i] for i in range(3)]
        place = [
            (turned[i] / turned[2] * self.focal[:, i].view(shape) + self.centre[:, i].view(shape)) * size
            for i in (0, 1)
        ]
        return torch.stack([*place, turned[2]], -1)

    def grid(self, size: int) -> Float[Tensor, "pixel 3"]:
        """World directions of one unit of depth through every pixel centre, view by view, row by row."""
        step = (torch.arange(size, device=self.origin.device) + 0.5) / size
        x = ((step - self.centre[:, :1]) / self.focal[:, :1])[:, None, :, None]
        y = ((step - self.centre[:, 1:]) / self.focal[:, 1:])[:, :, None, None]
        across, down, ahead = (self.rotation[:, None, None, :, k] for k in range(3))
        return (x * across + y * down + ahead).view(-1, 3)


def _rays(cameras: Float[Tensor, "view 25"]) -> _Rays:
    pose, intrinsics = cameras[:, :16].view(-1, 4, 4), cameras[:, 16:].view(-1, 3, 3)
    return _Rays(
        pose[:, :3, 3], pose[:, :3, :3], intrinsics[:, (0, 1), (0, 1)].contiguous(), intrinsics[:, :2, 2]
    )


@torch.no_grad()
def render_views(
    scenes: Scenes, cameras: Float[Tensor, "scene view 25"], size: int = 256, supersampling: int = 2
) -> Views:
    """Render every scene through its cameras (EG3D labels), `size` pixels square.

    Bit-exact for the same inputs, batch and device: the z-buffer is a minimum over packed keys. Needs about
    0.5 GB of memory per view of 256 px.
    """
    count, per_scene = cameras.shape[:2]
    rays = _rays(cameras.flatten(0, 1).to(scenes.points))
    fine = size * supersampling
    buffer, screen, firsts = _draw(scenes, rays, per_scene, fine)
    colour, label = _shade(scenes, rays, per_scene, fine, buffer, screen, firsts)
    rgb, alpha, depth, parts = _develop(scenes, rays, per_scene, size, supersampling, buffer, colour, label)
    shaped = lambda q: q.view(count, per_scene, *q.shape[1:])  # noqa: E731
    return Views(shaped(rgb), shaped(alpha), shaped(depth), shaped(parts))


def _draw(scenes: Scenes, rays: _Rays, per_scene: int, size: int) -> tuple[Tensor, Tensor, list[int]]:
    """The z-buffer, the mesh's screen positions and where each strand set's numbers begin."""
    views = len(rays.origin)
    repeat = lambda q: q.repeat_interleave(per_scene, 0)  # noqa: E731
    buffer = rasterise.new_buffer(views, size, rays.origin.device)
    screen = rays.project(repeat(scenes.points), size)
    rasterise.draw_triangles(buffer, size, screen, scenes.kit.triangles)
    firsts = [len(scenes.kit.triangles)]
    for strands in (scenes.hair, scenes.fine):
        nodes = rays.project(repeat(strands.nodes), size)
        rasterise.draw_segments(buffer, size, nodes, firsts[-1], taper=strands is scenes.hair)
        firsts.append(firsts[-1] + nodes.shape[1] * (nodes.shape[2] - 1) * rasterise.STEPS)
    return buffer, screen, firsts


def _shade(
    scenes: Scenes, rays: _Rays, per_scene: int, size: int, buffer: Tensor, screen: Tensor, firsts: list[int]
) -> tuple[Float[Tensor, "pixel 3"], Tensor]:
    depth, primitive, hit = rasterise.unpack(buffer)
    colour = torch.zeros(len(buffer), 3, device=buffer.device)
    label = torch.zeros(len(buffer), dtype=torch.uint8, device=buffer.device)
    kit = scenes.kit

    rays_through = rays.grid(size)

    def seen(pixel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scene, position and direction towards the camera of pixels."""
        view = torch.div(pixel, size * size, rounding_mode="floor")
        ray = rays_through[pixel]
        place = rays.origin[view] + ray * depth[pixel, None]
        return torch.div(view, per_scene, rounding_mode="floor"), place, -F.normalize(ray, dim=1)

    kind = torch.where(hit, kit.material[primitive.clamp(max=firsts[0] - 1)], -1)
    kind = torch.where(primitive >= firsts[0], -1, kind)
    for eyes in (False, True):
        pixel = ((kind == EYE) if eyes else (kind >= 0) & (kind != EYE)).nonzero()[:, 0]
        scene, _, toward = seen(pixel)
        corner, weight = rasterise.barycentric(screen, kit.triangles, size, pixel, primitive[pixel])
        index = corner + scene[:, None] * scenes.points.shape[1]
        flat = scenes.attributes.view(-1, scenes.attributes.shape[-1])
        attributes = flat[index[:, 0]] * weight[:, :1]
        for k in (1, 2):
            attributes = torch.addcmul(attributes, flat[index[:, k]], weight[:, k, None])
        if eyes:
            colour[pixel] = shade_eyes(scenes, scene, attributes, toward)
            label[pixel] = EYE_PART
        else:
            colour[pixel], part = shade_surface(scenes, scene, kind[pixel], attributes, toward)
            label[pixel] = part.to(torch.uint8)
    for strands, first, beyond in ((scenes.hair, firsts[0], firsts[1]), (scenes.fine, firsts[1], firsts[2])):
        pixel = (hit & (primitive >= first) & (primitive < beyond)).nonzero()[:, 0]
        scene, place, toward = seen(pixel)
        strand, along, light, own = _read_strands(strands, scene, primitive[pixel] - first)
        if strands is scenes.hair:
            gloss, part = torch.ones_like(place[:, 0]), torch.full_like(strand, HAIR)
        else:
            part = kit.fine_label[strand]
            gloss = 0.45 * (part == HAIR).float()
        colour[pixel] = shade_strands(scenes, scene, place, along, light, own, gloss, toward)
        label[pixel] = part.to(torch.uint8)
    return colour, label


def _read_strands(strands: StrandSet, scene: Tensor, number: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Strand, direction, light and colour at the numbered points of a strand set."""
    count, nodes = strands.nodes.shape[1:3]
    segment = torch.div(number, rasterise.STEPS, rounding_mode="floor")
    u = ((number - segment * rasterise.STEPS).float() + 0.5)[:, None] / rasterise.STEPS
    strand = torch.div(segment, nodes - 1, rounding_mode="floor")
    row = scene * count + strand
    start = row * nodes + (segment - strand * (nodes - 1))
    place, light = strands.nodes.reshape(-1, 3), strands.light.reshape(-1, 6)
    along = place[start + 1] - place[start]
    return strand, along, torch.lerp(light[start], light[start + 1], u), strands.colour.reshape(-1, 3)[row]


def _develop(
    scenes: Scenes, rays: _Rays, per_scene: int, size: int, supersampling: int,
    buffer: Tensor, colour: Tensor, label: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Filter to the picture's size, expose, tone-map, lay on white."""
    views, fine = len(rays.origin), size * supersampling
    z, _, hit = rasterise.unpack(buffer)
    cover = hit.view(views, 1, fine, fine).float()
    alpha = F.avg_pool2d(cover, supersampling)
    exposure = scenes.exposure.repeat_interleave(per_scene)
    light = F.avg_pool2d(colour.view(views, fine, fine, 3).permute(0, 3, 1, 2), supersampling)
    light = light * (exposure[:, None, None, None] / alpha.clamp_min(1e-3))
    picture = tone_curve(light) * alpha + (1 - alpha)
    rgb = (picture * 255 + 0.5).to(torch.uint8)

    z = torch.where(cover > 0, z.view_as(cover), torch.zeros(()).to(z))
    share = F.adaptive_avg_pool2d(cover, DEPTH_SIZE)[:, 0]
    depth = F.adaptive_avg_pool2d(z, DEPTH_SIZE)[:, 0] / share.clamp_min(1e-6)
    step = (torch.arange(DEPTH_SIZE, device=z.device) + 0.5) / DEPTH_SIZE
    across = (step - rays.centre[:, :1]) / rays.focal[:, :1]
    down = (step - rays.centre[:, 1:]) / rays.focal[:, 1:]
    depth = depth * (1 + across[:, None, :] ** 2 + down[:, :, None] ** 2).sqrt()
    parts = label.view(views, fine, fine)[
        :, supersampling // 2 :: supersampling, supersampling // 2 :: supersampling
    ]
    return rgb, (alpha[:, 0] * 255 + 0.5).to(torch.uint8), depth.half(), parts.contiguous()


def tone_curve(light: Tensor) -> Tensor:
    """Linear light to display values in [0, 1]: a soft shoulder, then the display's gamma."""
    light = light.clamp_min(0)
    return (light * (1 + light / 9) / (1 + 0.75 * light) * 1.32).clamp(0, 1) ** (1 / 2.2)
