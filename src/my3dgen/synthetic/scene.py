"""Scenes: everything about a batch of heads that does not depend on the camera, lit and ready to be seen."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from my3dgen.synthetic import hair as scalp_hair
from my3dgen.synthetic import skin as paint
from my3dgen.synthetic import strands as facial
from my3dgen.synthetic.asset import HeadAsset, load_asset, vertex_normals
from my3dgen.synthetic.factors import block
from my3dgen.synthetic.glasses import build_glasses, glasses_triangles
from my3dgen.synthetic.light import Light, ambient, lamp_weights, light_from_factors, sphere_directions
from my3dgen.synthetic.noise import smoothstep
from my3dgen.synthetic.shape import Geometry, build_geometry
from my3dgen.synthetic.subdivide import apply
from my3dgen.synthetic.torso import NECK, torso_yaw, turn, turned_share
from my3dgen.synthetic.visibility import ShadowMaps, shadow_maps, visibility

DIRECTIONS = 24
BOX = 0.48
"""Hair stays this far inside the tri-plane box [-0.5, 0.5]^3."""

_STRIDE = 2  # light is found at every second node of a strand and interpolated between

SKIN, EYE, MOUTH, GLASSES = 0, 1, 2, 3  # materials of the mesh
CHANNELS = {
    "normal": slice(0, 3), "canonical": slice(3, 6), "irradiance": slice(6, 9), "lamps": slice(9, 12),
    "albedo": slice(12, 15), "open": slice(15, 16), "shadow": slice(16, 17),
}  # fmt: skip


@dataclass(frozen=True)
class Kit:
    """What all scenes share: the asset and the fixed sets of roots, triangles and masks."""

    asset: HeadAsset
    detail: paint.SkinMap
    where: paint.Regions
    scalp: scalp_hair.Scalp
    brow_roots: facial.Roots
    beard_roots: facial.Roots
    triangles: Int[Tensor, "triangle 3"]
    material: Int[Tensor, " triangle"]
    fine_label: Int[Tensor, " fine"]
    """Part label of every short strand."""
    vertices: tuple[int, int, int, int]
    """How many vertices skin, eyes, mouth and glasses have, in this order."""


@dataclass(frozen=True)
class StrandSet:
    """Strands in world units with the light that reaches them."""

    nodes: Float[Tensor, "scene strand node 3"]
    light: Float[Tensor, "scene strand node 6"]
    """Irradiance (RGB) and the visibility of the three lamps."""
    colour: Float[Tensor, "scene strand 3"]


@dataclass(frozen=True)
class Paint:
    """Per-scene quantities that pixels need."""

    skin: paint.Complexion
    brows: facial.Brows
    brow_colour: Float[Tensor, "scene 3"]
    hair_colour: Float[Tensor, "scene 3"]
    age: Tensor
    iris: Float[Tensor, "scene 3"]
    iris_size: Tensor
    pupil: Tensor
    brown: Tensor
    cloth: Float[Tensor, "scene 3"]
    collar: Tensor


@dataclass(frozen=True)
class Scenes:
    """A batch of lit heads in world units (EG3D's frame)."""

    kit: Kit
    points: Float[Tensor, "scene vertex 3"]
    attributes: Float[Tensor, "scene vertex channel"]
    """Per vertex, see `CHANNELS`. On eyes `canonical` is the ball's own direction and `albedo` their lids."""
    hair: StrandSet
    fine: StrandSet
    centre: Float[Tensor, "scene 3"]
    light: Light
    paint: Paint
    exposure: Float[Tensor, " scene"]

    def __len__(self) -> int:
        return len(self.points)


_KITS: dict[int, Kit] = {}


def scene_kit(asset: HeadAsset) -> Kit:
    """The shared parts for an asset; made once per asset (about two seconds on a CPU)."""
    kit = _KITS.get(id(asset))
    if kit is None:
        kit = _KITS[id(asset)] = _make_kit(asset)
    return kit


@torch.no_grad()
def _make_kit(asset: HeadAsset) -> Kit:
    where = paint.regions(asset)
    eye = asset.landmarks["eye_left"]
    normals = vertex_normals(asset.template[None], asset.triangles, asset.incidence)[0]
    barred = torch.maximum(where.ear, smoothstep(where.inner_mouth, 0.1, 0.4))
    scalp = scalp_hair.make_scalp(asset.template, normals, asset.triangles, barred, float(eye[1]))
    wide = torch.tensor([0.165, 0.058, 0.036], device=asset.device)
    brows = facial.scatter_roots(asset, facial.brow_mask(asset.template, eye, *wide), 480, 50)
    beard = torch.maximum(torch.maximum(where.beard, where.goatee), where.moustache)
    beard_roots = facial.scatter_roots(asset, beard, 4500, 60)

    counts = [len(asset.template), 2 * len(asset.eye_directions), asset.mouth.incidence.shape[0], 0]
    glasses = glasses_triangles(asset.device)
    counts[3] = int(glasses.max()) + 1
    first = [0, counts[0], counts[0] + counts[1], sum(counts[:3])]
    eyes = torch.cat([asset.eye_triangles, asset.eye_triangles + len(asset.eye_directions)])
    parts = [asset.triangles, eyes, asset.mouth.triangles, glasses]
    triangles = torch.cat([part + start for part, start in zip(parts, first, strict=True)])
    material = torch.cat([torch.full((len(part),), k, device=asset.device) for k, part in enumerate(parts)])
    lashes = 4 * len(asset.lashes)
    fine_label = torch.cat([torch.full((n,), label) for n, label in ((480, 8), (4500, 2), (lashes, 3))]).to(
        asset.device
    )
    return Kit(
        asset, paint.skin_map(asset), where, scalp, brows, beard_roots, triangles, material, fine_label,
        (counts[0], counts[1], counts[2], counts[3]),
    )  # fmt: skip


@torch.no_grad()
def build_scenes(
    factors: Float[Tensor, "scene factors"],
    device: str | torch.device = "cpu",
    asset: HeadAsset | None = None,
) -> Scenes:
    """Heads, hair, clothes and light for a batch of factor vectors (`factors.FACTORS`), on `device`.

    Pictures are a continuous function of the factors; nothing else is random. Needs about 0.6 GB of
    memory per scene while it works.
    """
    asset = load_asset(str(device)) if asset is None else asset
    kit = scene_kit(asset)
    factors = factors.to(asset.device).float()
    geometry = build_geometry(asset, factors)
    skin = paint.complexion(factors, geometry.male)
    style = scalp_hair.hair_style(factors)
    brows = facial.brow_shape(factors, geometry.male)
    beard = facial.beard_style(factors, geometry.male, kit.where)

    yaw, pivot = torso_yaw(factors), _neck_axis(asset, geometry)
    body, normals, collar = _dress(kit, geometry, factors, yaw, pivot)
    glasses = build_glasses(
        factors, geometry.eye_centres, geometry.eyes[..., 2].amax((1, 2)),
        asset.landmarks["ear_left"] + geometry.eye_centres.mean(1) - _template_eyes(asset),
    )  # fmt: skip
    points = geometry.to_world(
        torch.cat([body, geometry.eyes.flatten(1, 2), geometry.mouth, glasses.points], 1)
    )
    facing = torch.cat(
        [normals, geometry.eye_normals.flatten(1, 2), geometry.mouth_normals, glasses.normals], 1
    )

    grown = scalp_hair.grow_hair(kit.scalp, style)
    fitted = scalp_hair.fit_to_heads(kit.scalp, grown.nodes, geometry.neutral, asset.template)
    # hair that hangs on the shoulders slides along with them, for the most part
    fitted = turn(fitted, 0.7 * turned_share(grown.nodes), yaw, pivot)
    strands = geometry.to_world(fitted).clamp(-BOX, BOX)
    fine = _facial_hair(kit, geometry, factors, brows, beard, style, body, normals)

    light = light_from_factors(factors)
    directions = sphere_directions(DIRECTIONS, asset.device)
    solid = torch.cat([points[:, : kit.vertices[0]], _quad_centres(asset, points)], 1)
    maps = shadow_maps(solid, _hair_points(strands), directions)
    attributes = _lit_mesh(kit, geometry, points, facing, maps, light, skin, style, beard, glasses.colour)
    centre = _hair_centre(kit, geometry)
    colours = _paint(factors, geometry, skin, brows, style, collar)
    return Scenes(
        kit=kit,
        points=points,
        attributes=attributes,
        hair=StrandSet(strands, _lit_strands(strands, maps, light, centre), grown.colour),
        fine=StrandSet(
            geometry.to_world(fine.nodes), _lit_fine(kit, geometry, fine, attributes), fine.colour
        ),
        centre=centre,
        light=light,
        paint=colours,
        exposure=_exposure(kit, attributes, light),
    )


def _template_eyes(asset: HeadAsset) -> Tensor:
    return 0.5 * (asset.landmarks["eye_left"] + asset.landmarks["eye_right"])


def _hair_centre(kit: Kit, geometry: Geometry) -> Float[Tensor, "scene 3"]:
    offset = kit.scalp.centre - _template_eyes(kit.asset)
    return geometry.to_world((geometry.eye_centres.mean(1) + offset)[:, None])[:, 0]


def _neck_axis(asset: HeadAsset, geometry: Geometry) -> Float[Tensor, "scene 2"]:
    offset = geometry.eye_centres.mean(1) - _template_eyes(asset)
    return offset[:, [0, 2]] + offset.new_tensor(NECK)


def _dress(
    kit: Kit, geometry: Geometry, factors: Tensor, yaw: Tensor, pivot: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn the shoulders into a shirt: smooth them, push them outwards, turn them below the head.

    Returns points, normals and the collar's height.
    """
    asset = kit.asset
    f = block(factors, "clothes")
    depth = 0.14 + 0.10 * torch.special.ndtr(f["collar"])
    mask = smoothstep(collar_height(asset.template, depth[:, None]) - asset.template[:, 1], -0.03, 0.05)
    smooth = geometry.expressed
    for _ in range(6):
        smooth = apply(asset.smoothing, smooth)
    body = geometry.expressed + (smooth + 0.09 * geometry.normals - geometry.expressed) * mask[..., None]
    body = turn(body, turned_share(asset.template), yaw, pivot)
    return body, vertex_normals(body, asset.triangles, asset.incidence), depth


def collar_height(canonical: Float[Tensor, "*point 3"], depth: Tensor) -> Tensor:
    """Canonical height of the neckline: lower in front by `depth` decimetres."""
    return 6.06 - depth * smoothstep(canonical[..., 2], -0.1, 0.9)


def _facial_hair(
    kit: Kit, geometry: Geometry, factors: Tensor, brows: facial.Brows, beard: facial.Beard,
    style: scalp_hair.HairStyle, body: Tensor, normals: Tensor,
) -> facial.Facial:  # fmt: skip
    eye, mouth = kit.asset.landmarks["eye_left"], kit.asset.landmarks["mouth"]
    sets = [
        facial.grow_brows(kit.brow_roots, brows, eye, body, normals, style.natural),
        facial.grow_beard(
            kit.beard_roots, beard, kit.where, mouth, body, normals, 0.5 * (style.natural + style.colour)
        ),
        facial.grow_lashes(geometry.lashes, kit.asset.lash_upper, factors),
    ]
    return facial.Facial(torch.cat([s.nodes for s in sets], 1), torch.cat([s.colour for s in sets], 1))


def _quad_centres(asset: HeadAsset, points: Tensor) -> Tensor:
    return points[:, asset.quads].mean(2)


def _hair_points(strands: Tensor) -> Float[Tensor, "scene point 3"]:
    """Every third strand, two points per segment: enough to fill the shadow maps."""
    some = strands[:, ::3]
    a, b = some[:, :, :-1], some[:, :, 1:]
    return torch.cat([a, 0.5 * (a + b)], 2).flatten(1, 2)


def _lit_mesh(
    kit: Kit, geometry: Geometry, points: Tensor, normals: Tensor, maps: ShadowMaps, light: Light,
    skin: paint.Complexion, style: scalp_hair.HairStyle, beard: facial.Beard, frame_colour: Tensor,
) -> Float[Tensor, "scene vertex channel"]:  # fmt: skip
    asset, where = kit.asset, kit.where
    scenes, (bodies, eyes, mouths, frames) = len(points), kit.vertices
    free = visibility(maps, points + 0.002 * normals)
    free[:, bodies + eyes + mouths :] = 1.0
    lamps = free @ lamp_weights(light, maps.directions)
    free = free * (normals @ maps.directions.T).clamp_min(0)
    share = 4.0 / len(maps.directions)
    sky = free @ (ambient(light, maps.directions) * share)
    openness = free.sum(-1, keepdim=True) * share
    wrap = points.new_tensor([0.30, 0.16, 0.10])
    facing = torch.einsum("svk,slk->svl", normals, light.direction)[..., None]
    direct = ((facing + wrap) / (1 + wrap)).clamp_min(0) * lamps[..., None] * light.colour[:, None]

    albedo = paint.vertex_albedo(skin, where, asset.template)
    inside = smoothstep(where.inner_mouth, 0.3, 0.8)[:, None]
    albedo = albedo * (1 - inside) + albedo.new_tensor([0.16, 0.035, 0.03]) * inside
    # light scatters below the skin, red furthest; it also bounces between parts of the face
    irradiance = sky + direct.sum(2)
    near = irradiance[:, :bodies]
    lamps = torch.cat([apply(asset.smoothing, lamps[:, :bodies]), lamps[:, bodies:]], 1)
    for _ in range(2):
        near = 0.5 * near + 0.5 * apply(asset.smoothing, near)
    far = near
    for _ in range(4):
        far = 0.5 * far + 0.5 * apply(asset.smoothing, far)
    share_far = near.new_tensor([0.60, 0.30, 0.12])
    mean = 0.5 * (light.sky + light.ground) + 0.25 * light.colour.sum(1)
    bounce = 0.22 * (1 - openness[:, :bodies].clamp(0, 1)) * skin.tone[:, None] * mean[:, None]
    near = near * (1 - share_far) + far * share_far + bounce

    eye_light, eye_lids = _lit_eyes(geometry, asset, irradiance[:, bodies : bodies + eyes], mean)
    teeth, tooth_light = _lit_mouth(
        kit,
        irradiance[:, bodies + eyes : bodies + eyes + mouths],
        openness[:, bodies + eyes : bodies + eyes + mouths],
        mean,
    )
    irradiance = torch.cat([near, eye_light, tooth_light, irradiance[:, bodies + eyes + mouths :]], 1)
    colour = torch.cat([albedo, eye_lids, teeth, frame_colour[:, None].expand(-1, frames, -1)], 1)

    azimuth, elevation, _ = scalp_hair.head_angles(asset.template, kit.scalp.centre)
    scalp = scalp_hair.hair_density(style, azimuth, elevation, 0.02, 0.14) * (1 - where.ear)
    scalp = scalp * (0.55 + 0.40 * smoothstep(style.length, 0.05, 0.2))[:, None]
    shadow = torch.zeros(scenes, points.shape[1], 1, device=points.device)
    shadow[:, :bodies, 0] = torch.maximum(scalp, beard.shadow)
    own = torch.cat([asset.template, asset.eye_directions, asset.eye_directions], 0)
    canonical = torch.zeros_like(points)
    canonical[:, : len(own)] = own
    return torch.cat([normals, canonical, irradiance, lamps, colour, openness, shadow], -1)


def _lit_eyes(
    geometry: Geometry, asset: HeadAsset, irradiance: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor]:
    """Light on the eyeballs under the shadow of the upper lid, and each point's distance from both lids."""
    curves = paint.lid_curves(asset, geometry.lashes)
    balls = geometry.eyes
    upper = paint.lid_height(curves[:, :2, None], balls[..., 0]) - balls[..., 1]
    lower = balls[..., 1] - paint.lid_height(curves[:, 2:, None], balls[..., 0])
    reach = (balls[..., 0] - curves[:, :2, None, 0]).abs() / curves[:, :2, None, 4]
    lids = torch.stack([upper, lower, reach], -1).flatten(1, 2)
    shade = (0.42 + 0.58 * smoothstep(upper, -0.005, 0.055)) * (0.75 + 0.25 * smoothstep(lower, -0.01, 0.03))
    shade = shade * (1 - 0.35 * smoothstep(reach, 0.55, 1.05))
    # the socket's own light: eyes are wet and bright, never as dark as a shadow map makes a small slit
    lit = 0.55 * irradiance + 0.42 * mean[:, None]
    return lit * shade.flatten(1, 2)[..., None], lids


def _lit_mouth(kit: Kit, irradiance: Tensor, openness: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Colours of enamel, gum and tongue, and their light, which falls off towards the throat."""
    mouth = kit.asset.mouth
    colours = irradiance.new_tensor([[0.70, 0.64, 0.54], [0.40, 0.15, 0.14], [0.34, 0.12, 0.11]])
    albedo = (mouth.material @ colours).expand(len(irradiance), -1, -1)
    deep = torch.exp(-((mouth.depth / 0.16) ** 1.5))[:, None]
    return albedo, (0.60 * irradiance + 0.50 * mean[:, None]) * (0.03 + 0.97 * deep)


def _lit_strands(
    nodes: Tensor, maps: ShadowMaps, light: Light, centre: Tensor
) -> Float[Tensor, "scene strand node 6"]:
    """Irradiance and lamp visibility at every node; the shape of the whole head of hair shades it too."""
    scenes, strands = nodes.shape[:2]
    along = F.normalize(_tangents(nodes)[:, :, ::_STRIDE], dim=-1).flatten(1, 2)
    flat = nodes[:, :, ::_STRIDE].flatten(1, 2)
    free = visibility(maps, flat)
    lamps = free @ lamp_weights(light, maps.directions)
    outward = F.normalize(flat - centre[:, None], dim=-1)
    wide = (outward @ maps.directions.T).mul_(0.5).add_(0.5).mul_(free)
    sky = wide @ (ambient(light, maps.directions) * (2.0 / len(maps.directions)))
    toward = torch.einsum("snk,slk->snl", along, light.direction)
    wrap = (torch.einsum("snk,slk->snl", outward, light.direction) * 0.55 + 0.45).clamp(0, 1)
    direct = ((1 - toward * toward).clamp_min(0).sqrt() * wrap * lamps) @ light.colour
    lit = torch.cat([sky + 0.85 * direct, lamps * wrap], -1).view(scenes, strands, -1, 6)
    between = torch.cat([0.5 * (lit[:, :, :-1] + lit[:, :, 1:]), lit[:, :, -1:]], 2)
    return torch.stack([lit, between], 3).flatten(2, 3)


def _tangents(nodes: Tensor) -> Tensor:
    step = nodes[:, :, 1:] - nodes[:, :, :-1]
    step = torch.cat([step[:, :, :1], step[:, :, :-1] + step[:, :, 1:], step[:, :, -1:]], 2)
    return step + step.new_tensor([0.0, -1e-6, 0.0])


def _lit_fine(kit: Kit, geometry: Geometry, fine: facial.Facial, attributes: Tensor) -> Tensor:
    """Short strands take the light of the skin they grow from."""
    light = attributes[..., 6:12]
    brows, beard = kit.brow_roots.on(light), kit.beard_roots.on(light)
    lashes = fine.nodes.shape[1] - brows.shape[1] - beard.shape[1]
    lash = brows.mean(1, keepdim=True).expand(-1, lashes, -1)
    return torch.cat([brows, beard, lash], 1)[:, :, None].expand(-1, -1, facial.NODES, -1)


def _exposure(kit: Kit, attributes: Tensor, light: Light) -> Float[Tensor, " scene"]:
    """From the light on the face's front, seen from nowhere in particular: the same for all views.

    Mostly undoes the strength of the light and, for a smaller part, the skin's own lightness, so that
    dark and light faces are equally well lit.
    """
    bodies = kit.vertices[0]
    luma = attributes.new_tensor([0.25, 0.60, 0.15])
    face = kit.asset.masks["face"] * (attributes[:, :bodies, 2].clamp_min(0))
    total = face.sum(1)
    light_on = ((attributes[:, :bodies, 6:9] @ luma) * face).sum(1) / total
    tone = ((attributes[:, :bodies, 12:15] @ luma) * face).sum(1) / total
    return light.exposure * (0.95 / light_on) ** 0.85 * (0.33 / tone) ** 0.32


def _paint(
    factors: Tensor, geometry: Geometry, skin: paint.Complexion, brows: facial.Brows,
    style: scalp_hair.HairStyle, collar: Tensor,
) -> Paint:  # fmt: skip
    eye = block(factors, "eye")
    brown = torch.sigmoid(1.4 * eye["brown"] + 0.5 + 4.5 * (skin.melanin - 0.35))
    hazel = torch.sigmoid(1.2 * eye["hazel"])[:, None]
    blue, green = factors.new_tensor([0.13, 0.24, 0.36]), factors.new_tensor([0.17, 0.21, 0.10])
    light = blue * (1 - hazel) + green * hazel
    dark = factors.new_tensor([0.085, 0.034, 0.014])
    cloth = torch.stack(
        [torch.special.ndtr(block(factors, "clothes")[c]) for c in ("red", "green", "blue")], 1
    )
    bright = cloth.mean(1, keepdim=True)
    cloth = bright + 0.18 * (cloth - bright)  # muted
    return Paint(
        skin=skin,
        brows=brows,
        brow_colour=facial.brow_colour(brows, style.natural),
        hair_colour=style.colour,
        age=geometry.age,
        iris=light * (1 - brown[:, None]) + dark * brown[:, None],
        iris_size=0.525 + 0.012 * torch.tanh(eye["iris_size"]),
        pupil=0.185 + 0.035 * torch.tanh(eye["pupil"]),
        brown=brown,
        cloth=0.02 + 0.62 * cloth**2.0,
        collar=collar,
    )
