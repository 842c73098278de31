"""The fixed part of every head: topology, linear bases, masks and landmarks.

Read from `weights/heads/head.npz` (CC0 1.0, see the card beside it and scripts/build_head_asset.py).
Lengths are decimetres in the template's frame: x to the person's left, y up, z to the front.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from my3dgen.errors import FileFormatError
from my3dgen.synthetic.eyes import eye_template
from my3dgen.synthetic.subdivide import apply, catmull_clark, neighbour_mean, triangulate
from my3dgen.synthetic.teeth import Mouth, mouth_template


@dataclass(frozen=True)
class HeadAsset:
    """Everything about heads that does not depend on factors, on one device.

    "coarse" vertices are the base mesh's (body first, then the helper strips), "vertex" the subdivided
    skin's (head, neck, shoulders), which is what is drawn.
    """

    base: Float[Tensor, "coarse 3"]  # the average adult
    bases: Float[Tensor, "component coarse 3"]  # 48 macro, 58 shape, 52 face units, in this order
    macro_average: Float[Tensor, " macro"]  # macro weights that `base` stands for
    unit_names: tuple[str, ...]  # 52, ARKit's names
    body: int  # the first `body` coarse vertices are the skin's
    subdivision: Tensor  # sparse "vertex body"
    smoothing: Tensor  # sparse "vertex vertex", mean of the neighbours
    incidence: Tensor  # sparse "vertex triangle", for normals
    quads: Int[Tensor, "quad 4"]
    triangles: Int[Tensor, "triangle 3"]
    template: Float[Tensor, "vertex 3"]  # canonical coordinates: paint here and it sticks to the skin
    masks: Mapping[str, Float[Tensor, " vertex"]]  # lips, eyelids, ears, face, inner_mouth in [0, 1]
    eye_helpers: Int[Tensor, "2 helper"]  # coarse vertices around the left (+x) and right eyeball
    eye_directions: Float[Tensor, "eyevertex 3"]  # unit, +z is the pupil: paint the iris here
    eye_radii: Float[Tensor, " eyevertex"]  # 1 on the ball, more on the cornea
    eye_triangles: Int[Tensor, "eyetriangle 3"]
    lashes: Int[Tensor, "lash 4"]  # coarse vertices: root, root, tip, tip; pairs lie side by side
    lash_upper: Float[Tensor, " lash"]  # 1 on the upper lid, 0 on the lower
    mouth: Mouth  # teeth, gums and tongue
    landmarks: Mapping[
        str, Float[Tensor, "3"]
    ]  # of the template: eye_left, eye_right, mouth, nose, chin, ...

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.base.device

    def unit(self, name: str) -> int:
        """The index of a face unit by its ARKit name."""
        return self.unit_names.index(name)


@functools.lru_cache(maxsize=4)
def load_asset(device: str | torch.device = "cpu") -> HeadAsset:
    """The shipped asset on a device; made once per device. Raises FileFormatError if it is damaged."""
    with resources.files("my3dgen").joinpath("weights/heads/head.npz").open("rb") as file:
        try:
            arrays = dict(np.load(file, allow_pickle=False))
            return _assemble(arrays, torch.device(device))
        except (KeyError, ValueError, OSError) as error:
            raise FileFormatError("weights/heads/head.npz is damaged; install the package again") from error


def _assemble(arrays: dict[str, np.ndarray], device: torch.device) -> HeadAsset:
    integers = lambda name: torch.from_numpy(arrays[name].astype(np.int64))  # noqa: E731
    quads = arrays["quads"].astype(np.int64)
    body = int(quads.max()) + 1
    base = torch.from_numpy(arrays["base"])
    steps = np.concatenate([arrays[f"{part}_basis"] for part in ("macro", "shape", "unit")])
    subdivision, fine_quads = catmull_clark(quads, body)
    fine = torch.from_numpy(fine_quads)
    triangles = triangulate(fine)
    template = (subdivision @ base[:body]).contiguous()
    masks = {
        name.removeprefix("mask_"): (subdivision @ (torch.from_numpy(mask).float() / 255)[:, None])[:, 0]
        for name, mask in arrays.items()
        if name.startswith("mask_")
    }
    eyes = torch.stack([integers("index_eye_left"), integers("index_eye_right")])
    lashes, lash_upper = _lashes(arrays, base, eyes)
    directions, radii, eye_triangles = eye_template()
    asset = HeadAsset(
        base=base,
        bases=torch.from_numpy(steps).float() * float(arrays["step"]),
        macro_average=torch.from_numpy(arrays["macro_average"]),
        unit_names=tuple(arrays["unit_names"].tolist()),
        body=body,
        subdivision=subdivision,
        smoothing=neighbour_mean(fine, len(template)),
        incidence=incidence(triangles, len(template)),
        quads=fine,
        triangles=triangles,
        template=template,
        masks=masks,
        eye_helpers=eyes,
        eye_directions=directions,
        eye_radii=radii,
        eye_triangles=eye_triangles,
        lashes=lashes,
        lash_upper=lash_upper,
        mouth=mouth_template(
            base, integers("index_teeth_upper"), integers("index_teeth_lower"),
            integers("index_tongue"), integers("quads_tongue"),
        ),
        landmarks=_landmarks(template, base, masks, eyes),
    )  # fmt: skip
    return _moved(asset, device)


def incidence(triangles: Int[Tensor, "triangle 3"], count: int) -> Tensor:
    """Sparse `vertex triangle` matrix of ones; times face normals it gives vertex normals."""
    faces = torch.arange(len(triangles)).repeat_interleave(3)
    indices = torch.stack([triangles.reshape(-1), faces])
    ones = torch.ones(indices.shape[1])
    return torch.sparse_coo_tensor(indices, ones, (count, len(triangles)), check_invariants=True).coalesce()


def vertex_normals(
    points: Float[Tensor, "scene vertex 3"], triangles: Int[Tensor, "triangle 3"], incidence: Tensor
) -> Float[Tensor, "scene vertex 3"]:
    """Unit vertex normals, area-weighted over the triangles around each vertex."""
    a, b, c = points[:, triangles].unbind(2)
    return torch.nn.functional.normalize(apply(incidence, torch.linalg.cross(b - a, c - a)), dim=-1)


def _lashes(arrays: dict, base: Tensor, eyes: Tensor) -> tuple[Tensor, Tensor]:
    """Lash strips as quads sorted into root and tip, by their distance from the eyeball."""
    found, upper = [], []
    for edge in ("upper", "lower"):
        for side, name in enumerate(("left", "right")):
            quads = torch.from_numpy(arrays[f"quads_lash_{edge}_{name}"].astype(np.int64))
            centre = base[eyes[side]].mean(0)
            order = (base[quads] - centre).norm(dim=-1).argsort(1)
            quads = quads.gather(1, order)
            root, tip = quads[:, :2], quads[:, 2:]
            across = base[root[:, 0]] - base[root[:, 1]]
            swapped = (across * (base[tip[:, 0]] - base[tip[:, 1]])).sum(1) < 0
            tip = torch.where(swapped[:, None], tip.flip(1), tip)
            found.append(torch.cat([root, tip], 1))
            upper.append(torch.full((len(quads),), float(edge == "upper")))
    return torch.cat(found), torch.cat(upper)


def _landmarks(template: Tensor, base: Tensor, masks: dict, eyes: Tensor) -> dict[str, Tensor]:
    lips, ears = masks["lips"] > 0.6, masks["ears"] > 0.5
    mouth = template[lips].mean(0)
    middle = template[:, 0].abs() < 0.06
    below = middle & (template[:, 1] < mouth[1] - 0.25) & (template[:, 1] > mouth[1] - 0.6)
    left_ear = ears & (template[:, 0] > 0)
    return {
        "eye_left": base[eyes[0]].mean(0),
        "eye_right": base[eyes[1]].mean(0),
        "mouth": mouth,
        "mouth_front": torch.stack([torch.zeros(()), mouth[1], template[lips][:, 2].max()]),
        "nose": template[template[:, 2].argmax()],
        "chin": template[below][template[below][:, 2].argmax()],
        "ear_left": template[left_ear].mean(0),
        "crown": template[template[:, 1].argmax()],
    }


def _moved(asset: HeadAsset, device: torch.device) -> HeadAsset:
    def move(value: object) -> object:
        if isinstance(value, Tensor):
            return value.to(device)
        if isinstance(value, dict):
            return {key: move(item) for key, item in value.items()}
        if isinstance(value, Mouth):
            return Mouth(**{key: move(item) for key, item in vars(value).items()})  # type: ignore[arg-type]
        return value

    return HeadAsset(**{key: move(value) for key, value in vars(asset).items()})  # type: ignore[arg-type]
