"""Small third-party networks that ship with the package as safetensors.

`manifest.json` names the licence, origin and sha256 of each; `scripts/convert_networks.py` made
them. Nothing is downloaded and nothing is unpickled at run time.
"""

import functools
import hashlib
import json
from pathlib import Path

from torch import Tensor

from my3dgen.errors import MissingWeightsError
from my3dgen.int8 import from_int8

FOLDER = Path(__file__).parent


@functools.cache
def manifest() -> dict[str, dict]:
    """Name -> {"sha256", "bytes", "licence", "source", "carrier", "carrier_sha256"}."""
    return json.loads((FOLDER / "manifest.json").read_text())


def load_tensors(name: str) -> tuple[dict[str, Tensor], dict | None]:
    """The tensors of one network and its graph, if it has one (see `my3dgen.faces.graph`).

    Stored float16 and int8 become float32; an int8 tensor `x` comes with `x.scale`, one factor
    per output channel. Integer tensors without a scale stay integers.

    Raises MissingWeightsError when the file is absent or is not the one in the manifest.
    """
    from safetensors.torch import load

    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise MissingWeightsError(f"{path.name} is missing from this installation; reinstall my3dgen")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest()[name]["sha256"]:
        raise MissingWeightsError(f"{path} is damaged (sha256 differs); reinstall my3dgen")
    tensors = from_int8(load(data))
    # safetensors keeps its header as JSON after eight bytes of length.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    graph = header.get("__metadata__", {}).get("graph")
    return tensors, json.loads(graph) if graph else None
