"""Ranks by group of layers, and which extras train: an adapter's dials, as text on the command line.

backbone          3x3 convolutions of the backbone; b4, b8, ... are those of one resolution
superresolution   3x3 convolutions of the super-resolution head
affine            style vector to the scales of a layer, everywhere
torgb             1x1 convolutions to plane or image channels, everywhere
"""

import re
from collections.abc import Mapping

from my3dgen.errors import UserError

MAX_RANK = 64
GROUPS = ("backbone", "superresolution", "affine", "torgb")
EXTRAS = ("const", "bias", "noise")
"""What trains beside low-rank factors: the backbone's constant, all biases, all noise strengths."""
PLACED = {"b4": 0, "b8": 0, "b16": 0, "b128": 3, "b256": 2, "superresolution": 2}
"""What differs from rank 1, in fewer numbers: likeness is drawn at high resolution, while what the lowest
layers decide the anchors choose already. Chosen by measurement at standard quality."""

_EXTRA_OF = {"const": "const", "bias": "bias", "noise_strength": "noise"}


def groups_of(path: str) -> tuple[str, ...]:
    """The groups that the weight at a parameter path is in, the narrowest first."""
    if path.endswith(".affine.weight"):
        return ("affine",)
    if path.endswith(".torgb.weight"):
        return ("torgb",)
    if block := re.match(r"backbone\.synthesis\.(b\d+)\.", path):
        return (block[1], "backbone")
    return ("superresolution",)


def rank_of(path: str, rank: int, ranks: Mapping[str, int]) -> int:
    """The rank of the weight at `path`: that of its narrowest group in `ranks`, else `rank`."""
    return next((ranks[group] for group in groups_of(path) if group in ranks), rank)


def kernel_of(path: str) -> int:
    """Side of the kernel of the weight at a parameter path; 1 for a matrix."""
    return 1 if path.endswith((".affine.weight", ".torgb.weight")) else 3


def is_extra(path: str, extras: tuple[str, ...]) -> bool:
    """Whether the constant, bias or noise strength at a parameter path is among `extras`."""
    return _EXTRA_OF[path.rpartition(".")[2]] in extras


def parse_ranks(text: str, resolutions: tuple[int, ...]) -> dict[str, int]:
    """`backbone=1,affine=2,b64=0` -> group to rank. Raises UserError, naming the part that is wrong."""
    known = (*GROUPS, *(f"b{resolution}" for resolution in resolutions))
    ranks: dict[str, int] = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        group, _, value = part.partition("=")
        if group not in known or group in ranks:
            what = "twice the" if group in ranks else "an unknown"
            raise UserError(f"--ranks has {what} group '{group[:40]}'; groups are {', '.join(known)}")
        if not (value.isascii() and value.isdigit() and len(value) < 4 and int(value) <= MAX_RANK):
            raise UserError(f"--ranks {part[:60]}: the rank must be a whole number from 0 to {MAX_RANK}")
        ranks[group] = int(value)
    return ranks


def parse_extras(text: str) -> tuple[str, ...]:
    """`all`, `none` or some of EXTRAS with commas between -> those, in their order. Raises UserError."""
    chosen = {"all": EXTRAS, "none": ()}.get(text, tuple(text.replace(" ", "").split(",")))
    if wrong := [name for name in chosen if name not in EXTRAS]:
        raise UserError(f"--extras '{wrong[0][:40]}' is not all, none or some of {', '.join(EXTRAS)}")
    return tuple(name for name in EXTRAS if name in chosen)
