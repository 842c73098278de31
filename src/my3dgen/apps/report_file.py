"""Figures as a JSON file, with a picture of them beside it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from my3dgen.apps.sheet import save_image
from my3dgen.output import check_output, whole


def check_report(path: str | os.PathLike) -> Path:
    """The path, if a report can be written there. Raises UserError, before any work is done."""
    return check_output(path, (".json",), "a report ends in .json")


def save_report(figures: Mapping[str, Any], picture: Image.Image, path: str | os.PathLike) -> Path:
    """Write figures to `path` and their picture beside it, ending in .chart.png; returns its path.

    Raises UserError as `check_report`, ValueError for a figure that JSON does not have.
    """
    path = check_report(path)
    text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return save_image(picture, path.with_suffix(".chart.png"))
