"""A results.json of the benchmark, read: a file from anywhere, so nothing in it is taken on trust."""

import json
from pathlib import Path
from typing import Any

from my3dgen.errors import FileFormatError
from my3dgen.evaluate.method_known import SOURCE
from my3dgen.evaluate.method_protocol import METHODS, SPACES
from my3dgen.evaluate.method_protocol_file import parse_protocol
from my3dgen.evaluate.method_summary import COSTS, summarise
from my3dgen.person import refuse_constant

WORDS = (
    *("my3dgen", "commit", "prior", "prior_sha256", "device", "torch"),
    *("perceptual_network", "identity_network"),
)
MAX_BYTES = 256 << 20
REMEDY = "write one with: my3dgen evaluate method --out FOLDER"


def read_results(path: Path) -> dict[str, Any]:
    """A results.json, every value that is told checked, its summary made anew.

    Raises FileFormatError for anything else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(
                f"{path} is larger than {MAX_BYTES >> 20} MB, so it holds no results; {REMEDY}"
            )
        return checked(json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from None
    except RecursionError:
        raise FileFormatError(f"{path} is nested too deeply to hold results; {REMEDY}") from None
    except ValueError as error:
        reason = "it is not JSON" if isinstance(error, json.JSONDecodeError) else error
        raise FileFormatError(f"{path} holds no results: {reason}; {REMEDY}") from None


def checked(results: Any) -> dict[str, Any]:
    """Results whose words, protocol and rows are what they should be. Raises ValueError otherwise."""
    if not isinstance(results, dict):
        raise ValueError("it is not an object")
    for name in WORDS:
        if not is_plain(results.get(name)):
            raise ValueError(f"'{name}' is not a short line")
    earlier = results.get("earlier")
    if earlier is not None and not (
        isinstance(earlier, dict)
        and type(earlier.get("rows")) is int
        and all(is_plain(earlier.get(name)) for name in SOURCE)
    ):
        raise ValueError("'earlier' does not say where rows come from")
    numbers = {"left": 0} | results  # files of before rows were written one by one have no rows left
    for name in ("seed", "people", "failed", "left"):
        if type(numbers.get(name)) is not int or not 0 <= numbers[name] < 2**32:
            raise ValueError(f"'{name}' is not a number")
    protocol = parse_protocol(results.get("protocol"))
    rows = results.get("rows")
    if not isinstance(rows, list) or not all(is_row(row) for row in rows):
        raise ValueError("'rows' are not those of a benchmark")
    return results | {"protocol": protocol.to_json(), "summary": summarise(rows, results["seed"])}


def is_plain(words: Any) -> bool:
    """Whether words may stand in a page: one line, not long, nothing that Markdown would take for its own."""
    if not isinstance(words, str) or len(words) > 200:
        return False
    return words.isprintable() and not set(words) & set("<>[]|`*")


def is_row(row: Any) -> bool:
    """Whether something is a row: a key, and figures or an error."""
    if not isinstance(row, dict) or any(
        type(row.get(name)) is not int for name in ("person", "rank", "photos")
    ):
        return False
    if row.get("method") not in METHODS or row.get("anchors") not in SPACES:
        return False
    if "error" in row:
        return isinstance(row["error"], str)
    by_yaw = row.get("by_yaw")
    if not isinstance(by_yaw, dict) or not all(isinstance(scores, dict) for scores in by_yaw.values()):
        return False
    if not all(yaw.removeprefix("-").isdecimal() for yaw in by_yaw):
        return False
    figures = [value for name, value in row.items() if name not in ("method", "anchors", "by_yaw")]
    figures += [value for scores in by_yaw.values() for value in scores.values()]
    known = all(value is None or type(value) in (int, float) for value in figures)
    # the memory of a row may not be known
    return known and all(type(row.get(name)) in (int, float) for name in COSTS if name != "peak_memory_mb")
