"""The factor vector of a synthetic head: every choice the generator makes, i.i.d. N(0, 1).

A picture is a continuous function of this vector and the camera. Nothing else is random: strand
roots, moles and blotches use one set of random numbers common to all heads, so that the vector
explains the picture and a network can learn the map. Smooth functions (tanh, the normal
distribution function) turn factors into bounded quantities where they are used.
"""

from collections.abc import Iterable, Sequence
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

# block -> meaning of each of its factors, in order
MEANINGS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        # sex: < 0 feminine, > 0 masculine; age: adults only, < 0 younger; the mix coordinates move
        # between three average face shapes and say nothing about skin tone
        "macro": ("sex", "age", "mix_a", "mix_b", "weight", "muscle"),
        "shape": tuple(f"shape_{i:02d}" for i in range(58)),
        "skin": ("melanin", "blood", "under_eye", "freckles", "moles", "lip_colour", "shine", "blotches"),
        "eye": ("brown", "hazel", "pupil", "iris_size"),
        "brow": ("height", "arch", "thickness", "darkness", "density"),
        "hair": (
            *("black", "red", "grey"),
            *("length", "volume", "curl", "curl_frequency", "part", "hairline", "recession"),
            *("fringe", "clump", "comb", "lift", "straightness", "coverage"),
            *("tied", "tie_height", "bun", "sweep", "tuck"),
        ),
        "beard": ("amount", "length", "moustache", "shape"),
        "clothes": ("red", "green", "blue", "collar"),
        "glasses": ("presence", "shape", "colour"),
        "lash": ("length", "density"),
        "expression": (
            *("smile", "teeth", "jaw", "asymmetry", "lip_press", "brows", "lids"),
            *("inner_brow", "squint", "nose", "pucker", "gaze_yaw", "gaze_pitch", "torso_yaw"),
        ),
        "light": (
            *("key_azimuth", "key_elevation", "key_warmth", "key_strength", "key_sharpness"),
            *("fill_azimuth", "fill_warmth", "fill_strength"),
            *("rim_azimuth", "rim_warmth", "rim_strength"),
            *("sky_warmth", "sky_strength", "ground_warmth", "ground_strength", "exposure"),
        ),
    }
)


def performance_seed(seed: int, index: int) -> int:
    """The seed of a person's `index`-th other performance, away from the seeds of people."""
    return (1 << 60) + seed * 65536 + index


def _slices() -> dict[str, slice]:
    starts, here = {}, 0
    for block, names in MEANINGS.items():
        starts[block] = slice(here, here + len(names))
        here += len(names)
    return starts


FACTORS: MappingProxyType[str, slice] = MappingProxyType(_slices())
"""Where each block lies in the factor vector."""

NUM_FACTORS = sum(map(len, MEANINGS.values()))

PERFORMANCE = ("expression", "light")
"""Blocks that change from photo to photo of one person; all others are the person."""

# Seeds are promises: a head seen in training must never be met again in a test or a demonstration.
TRAIN_SEEDS = range(0, 1_000_000_000)
HELD_OUT_SEEDS = range(1_000_000_000, 1_100_000_000)


def sample_factors(
    seeds: Iterable[int] | Tensor, device: str | torch.device = "cpu"
) -> Float[Tensor, "batch factors"]:
    """One N(0, 1) factor vector per seed, `batch 145`, float32.

    A row depends on its seed alone, not on the batch or the device (up to rounding).
    Seeds are integers in [0, 2**63).
    """
    return normals(seeds, NUM_FACTORS, device=device)


def normals(
    seeds: Iterable[int] | Tensor, count: int, *, stream: int = 0, device: str | torch.device = "cpu"
) -> Float[Tensor, "batch count"]:
    """`count` numbers from N(0, 1) per seed; streams are independent of each other, 0 holds the factors.

    From a counter-based hash (the splitmix64 finaliser) instead of a sequential generator, so that a
    batch is one parallel computation and no row depends on another.
    """
    if not isinstance(seeds, Tensor):
        seeds = torch.tensor(list(seeds), dtype=torch.int64)
    seeds = seeds.to(device=device, dtype=torch.int64)
    counter = torch.arange(1, count + 1, device=device) + (stream << 32)
    bits = _mix(_mix(seeds + 1)[:, None] + counter * _GOLDEN)
    uniform = (_shift_right(bits, 11).double() + 0.5) * 2.0**-53
    return torch.special.ndtri(uniform).float()


def block(factors: Float[Tensor, "batch factors"], name: str) -> dict[str, Float[Tensor, " batch"]]:
    """The factors of one block by name, e.g. `block(f, "macro")["sex"]`, each `batch`."""
    return dict(zip(MEANINGS[name], factors[:, FACTORS[name]].unbind(1), strict=True))


def with_blocks(
    factors: Float[Tensor, "batch factors"],
    source: Float[Tensor, "batch factors"],
    blocks: Sequence[str] = PERFORMANCE,
) -> Float[Tensor, "batch factors"]:
    """`factors` with the named blocks taken from `source`: the same people, performing anew."""
    mixed = factors.clone()
    for name in blocks:
        mixed[:, FACTORS[name]] = source[:, FACTORS[name]]
    return mixed


def with_factors(
    factors: Float[Tensor, "batch factors"], name: str, **values: float
) -> Float[Tensor, "batch factors"]:
    """`factors` with single entries of a block set, e.g. `with_factors(f, "expression", smile=1.5)`."""
    changed = factors.clone()
    for meaning, value in values.items():
        changed[:, FACTORS[name].start + MEANINGS[name].index(meaning)] = value
    return changed


_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number; products wrap modulo 2**64


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical, although int64 is signed


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ _shift_right(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ _shift_right(x, 31)
