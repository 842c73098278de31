"""A protocol from its JSON file, every value checked: the file may be anybody's."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from my3dgen.errors import FileFormatError, UserError
from my3dgen.evaluate.method_protocol import (
    BENT,
    FORMAT,
    METHODS,
    RANKED,
    RESOLUTIONS,
    SPACES,
    Entry,
    Inversion,
    Protocol,
    Training,
)
from my3dgen.evaluate.prior_people import MOST_SEEDS, RESERVED, SPAN
from my3dgen.person import MAX_RANK
from my3dgen.ranks import parse_ranks
from my3dgen.synthetic.album import HELD_OUT_EVERY
from my3dgen.synthetic.factors import HELD_OUT_SEEDS

MAX_BYTES = 1 << 20
OWN_SEEDS = HELD_OUT_SEEDS[RESERVED + MOST_SEEDS * SPAN :]
"""Held-out seeds that no evaluation of a prior can ask for."""


def read_protocol(path: Path) -> Protocol:
    """A protocol file, every value checked. Raises FileFormatError that names what is wrong."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(f"{path} is larger than {MAX_BYTES >> 20} MB; a protocol is a short list")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror}); give a protocol file") from None
    except (ValueError, RecursionError):
        raise FileFormatError(f"{path} is not JSON; benches/protocol.json shows the form") from None
    try:
        return parse_protocol(content)
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}; benches/protocol.json shows the form") from None


def parse_protocol(content: Any) -> Protocol:
    """A protocol from JSON values. Raises ValueError that says what is wrong."""
    values = dict(_object(content, "the protocol"))
    if values.pop("format", None) != FORMAT:
        raise ValueError(f"'format' is not {FORMAT}")
    _check_names(values, Protocol, "the protocol")
    people = _seeds(values["people"], "people")
    tuning = _seeds(values["tuning_people"], "tuning_people")
    if not people or set(people) & set(tuning):
        raise ValueError("'people' is empty or shares seeds with 'tuning_people'")
    yaws = _integers(values["yaws"], "yaws", -50, 50)
    if 0 not in yaws or list(yaws) != sorted(set(yaws)):
        raise ValueError("'yaws' are not different degrees in rising order with 0 among them")
    limits = {
        "album": (HELD_OUT_EVERY, 600),
        "photo_size": (256, 2048),
        "moments": (1, 100),
        "samples": (2, 10_000),
        "sample_yaw": (0, 60),
        "interpolations": (1, 100),
        "interpolation_steps": (3, 100),
    }
    numbers = {name: _integer(values[name], name, *span) for name, span in limits.items()}
    if numbers["photo_size"] % 64:
        raise ValueError("'photo_size' is not a multiple of 64")
    if numbers["moments"] > numbers["album"] // HELD_OUT_EVERY:
        raise ValueError(
            f"'moments' are more than the held-out photos, a sixth of 'album' {numbers['album']}"
        )
    entries = values["methods"]
    if not isinstance(entries, list) or not entries:
        raise ValueError("'methods' is not a list of methods")
    learned = numbers["album"] - numbers["album"] // HELD_OUT_EVERY
    protocol = Protocol(
        people=people,
        tuning_people=tuning,
        yaws=yaws,
        inversion=_settings(values.get("inversion", {}), Inversion, "inversion"),
        methods=tuple(_entry(entry, learned) for entry in entries),
        **numbers,
    )
    names = [row.name for row in protocol.rows(people[:1])]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"'methods' has the row {min(twice)} twice")
    return protocol


def _entry(content: Any, learned: int) -> Entry:
    values = _object(content, "a method")
    method = values.get("method")
    if method not in METHODS:
        raise ValueError(f"'method' is {str(method)[:40]!r}, not one of {', '.join(METHODS)}")
    _check_names(values, Entry, method)
    least, most = (0, 0) if method == "pti" else (1, learned)
    photos = _integers(values["photos"], f"{method}: photos", least, most)
    anchors = values.get("anchors", ["w"])
    if not isinstance(anchors, list) or not anchors or not set(anchors) <= set(SPACES):
        raise ValueError(f"'{method}: anchors' are not a list of w and w+")
    if method.startswith("prior-") and anchors != [method.removeprefix("prior-")]:
        raise ValueError(f"'{method}: anchors' are those of the method itself")
    ranks = (0,)
    if method in RANKED:
        ranks = _integers(values.get("ranks"), f"{method}: ranks", 1, MAX_RANK)
    elif "ranks" in values:
        raise ValueError(f"'{method}' has no ranks")
    training = pivoting = None
    if not method.startswith("prior-"):
        training = _settings(values.get("training", {}), Training, f"{method}: training")
        cut = training.budget is not None
        if cut != (method == "lora-small") and method != "lora-placed":
            raise ValueError(f"'{method}' {'has no' if cut else 'lacks'} budget")
        if bool(training.ranks) != (method == "lora-placed"):
            raise ValueError(
                f"'{method}: training' {'lacks' if method == 'lora-placed' else 'has no'} ranks of groups"
            )
    if method in BENT:
        pivoting = _settings(values.get("pivoting", {}), Training, f"{method}: pivoting")
        if pivoting.budget is not None or pivoting.ranks:
            raise ValueError(f"'{method}: pivoting' has no {'ranks' if pivoting.ranks else 'budget'}")
    elif "pivoting" in values:
        raise ValueError(f"'{method}' has no pivoting")
    if any(one.alpha != 1 for one in (pivoting, None if method in RANKED else training) if one is not None):
        raise ValueError(f"'{method}' has no new factors there that 'alpha' would scale; leave it out")
    if any(one is not None and one.refine for one in (pivoting, training if method == "pti" else None)):
        raise ValueError(f"'{method}' has no anchors to refine around a photo; leave out 'refine'")
    return Entry(
        method=method,
        photos=photos,
        anchors=tuple(anchors),
        ranks=ranks,
        training=training,
        pivoting=pivoting,
    )


def _settings(content: Any, kind: type, name: str) -> Any:
    values = _object(content, name)
    _check_names(values, kind, name, all_of_them=False)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key == "rate":
            if type(value) not in (int, float) or not 0 < value <= 1:
                raise ValueError(f"'{name}: rate' is not between 0 and 1")
            checked[key] = float(value)
        elif key == "alpha":
            if type(value) not in (int, float) or not 0 < value <= MAX_RANK:
                raise ValueError(f"'{name}: alpha' is not above 0 and at most {MAX_RANK}")
            checked[key] = float(value)
        elif key in ("perceptual", "refine"):
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise ValueError(f"'{name}: {key}' is not from 0 to 1")
            checked[key] = float(value)
        elif key == "ranks":
            checked[key] = _ranks(value, name)
        elif key in ("window", "budget") and value is None:
            checked[key] = None
        else:
            low = 0 if key in ("common_steps", "warm") else 1
            checked[key] = _integer(value, f"{name}: {key}", low, 1_000_000)
    return kind(**checked)


def _ranks(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"'{name}: ranks' is not text such as 'b4=0,b128=3'")
    try:
        placed = parse_ranks(value, RESOLUTIONS)
    except UserError as error:
        raise ValueError(f"'{name}': {str(error).removeprefix('--')}") from None
    return value if placed else ""


def _check_names(values: Mapping[str, Any], kind: type, name: str, *, all_of_them: bool = True) -> None:
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{name} has the unknown entry {unknown[0][:40]!r}")
    optional = {"inversion", "anchors", "ranks", "training", "pivoting"}
    if all_of_them and (missing := sorted(known - optional - set(values))):
        raise ValueError(f"{name} lacks '{missing[0]}'")


def _object(content: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{name} is not an object")
    return content


def _integer(value: Any, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"'{name}' is not a whole number from {low} to {high}")
    return value


def _integers(values: Any, name: str, low: int, high: int) -> tuple[int, ...]:
    if not isinstance(values, list) or not 1 <= len(values) <= 1000:
        raise ValueError(f"'{name}' is not a list of numbers")
    return tuple(_integer(value, name, low, high) for value in values)


def _seeds(values: Any, name: str) -> tuple[int, ...]:
    seeds = _integers(values, name, OWN_SEEDS[0], OWN_SEEDS[-1])
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"'{name}' has a seed twice")
    return seeds
