"""Rows that another run has measured: results of one machine that another goes on from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from my3dgen import __version__
from my3dgen.errors import UserError
from my3dgen.evaluate.method_people import ALBUM_CHANGES
from my3dgen.evaluate.method_protocol import CHANGING, KEY, RANKED, Protocol, Row
from my3dgen.evaluate.method_protocol_file import parse_protocol
from my3dgen.prior.store import Prior
from my3dgen.rates import FACTORS

SOURCE = ("commit", "device", "torch")


@dataclass(frozen=True)
class Known:
    """Rows of earlier results by what they answer, and where those came from."""

    rows: Mapping[Row, dict[str, Any]]
    source: dict[str, Any] | None
    """Commit, device and torch of the earlier results, and how many of their rows are kept."""


def known_rows(
    results: Mapping[str, Any], rows: Sequence[Row], protocol: Protocol, prior: Prior, seed: int
) -> Known:
    """Those of `rows` that `results` (as `read_results` checked them) answer.

    A method whose settings have changed since is left out, adapters if the rates of their parts have, rows of
    changing albums if what changes there has, and rows that failed. Raises UserError for results of another
    prior, seed, or protocol apart from its methods and the people who tune them.
    """
    earlier = parse_protocol(results["protocol"])
    now, then = (
        {"my3dgen": version, "prior": sha256, "seed": number, **asked.to_json()}
        | {"methods": None, "tuning_people": None}
        for version, sha256, number, asked in (
            (__version__, prior.sha256, seed, protocol),
            (results["my3dgen"], results["prior_sha256"], results["seed"], earlier),
        )
    )
    if other := [name for name in now if now[name] != then[name]]:
        raise UserError(
            f"the known results are of another {other[0]}; leave out --known, or ask for the same"
        )
    # of a row that borrows an adapter, too: its settings repeat those of the lender
    unchanged = set(earlier.rows(earlier.people))
    if results.get("adapter_rates") != FACTORS:
        unchanged = {row for row in unchanged if row.method not in RANKED}
    if results.get("album_changes") != ALBUM_CHANGES:
        unchanged = {row for row in unchanged if row.method not in CHANGING}
    figures = {tuple(row[name] for name in KEY): row for row in results["rows"] if "error" not in row}
    kept = {row: figures[key_of(row)] for row in rows if row in unchanged and key_of(row) in figures}
    source = {name: results[name] for name in SOURCE} | {"rows": len(kept)}
    return Known(kept, source)


def key_of(row: Row) -> tuple[Any, ...]:
    """As results name a row."""
    return tuple(row.key()[name] for name in KEY)
