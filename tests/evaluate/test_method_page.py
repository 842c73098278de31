"""The page of the benchmark: what it says follows from the committed results, and its sheets' rows."""

from pathlib import Path

import pytest
from PIL import Image

from my3dgen.evaluate.method_claims import CLAIMS
from my3dgen.evaluate.method_findings import costs_of_changes, findings
from my3dgen.evaluate.method_report import page_of, settled_results, write_docs
from my3dgen.evaluate.method_results_file import read_results
from my3dgen.evaluate.method_sheets import CELL, LEFT_OUT, changing_rows, methods_rows, rows_sheet
from my3dgen.evaluate.method_summary import summarise

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def committed():
    return read_results(ROOT / "benches/results/protocol.json")


def test_the_committed_page_is_that_of_the_committed_results(committed):
    pictures = {path.name for path in (ROOT / "docs/pictures").iterdir()}
    page = page_of(settled_results(committed), pictures)
    assert page == (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert committed["left"] == committed["failed"] == 0


def test_sheets_of_before_stay_without_pictures_of_rows_but_plots_do_not(committed, tmp_path):
    rows = [row for row in committed["rows"] if row["method"] in ("prior-w", "lora") and row["photos"] == 50]
    (tmp_path / "pictures").mkdir()
    for name in ("method_views.jpg", "method_photos.png"):
        (tmp_path / "pictures" / name).touch()
    text = write_docs(committed | {"rows": rows}, tmp_path / "nowhere", tmp_path).read_text()
    linked = {part.split(")")[0] for part in text.split("](pictures/")[1:]}
    assert {"method_views.jpg", "method_yaw.png"} <= linked and "method_photos.png" not in linked


def test_eight_bits_lose_less_than_a_fifth_of_a_decibel(committed):
    def psnr(method, figure):
        return {
            row["person"]: row[figure]
            for row in committed["rows"]
            if (row["method"], row["rank"], row["photos"], row["anchors"]) == (method, 1, 50, "w")
        }

    for figure in ("heldout_psnr", "views_psnr"):
        whole, small = psnr("lora", figure), psnr("lora-int8", figure)
        assert whole.keys() == small.keys() and len(whole) == 16
        assert all(small[person] > whole[person] - 0.2 for person in whole)


def test_reasons_name_the_section_they_mean():
    sections = {claim.key: number for number, claim in enumerate(CLAIMS, start=1)}
    assert f"(section {sections['bytes']})" in CLAIMS[2].why["full"]


def rows(method, rank=0, photos=50, **figures):
    return [
        {"person": p, "method": method, "rank": rank, "photos": photos, "anchors": "w"}
        | {name: value + p / 100 for name, value in figures.items()}
        for p in range(6)
    ]


def test_findings_tell_shares_and_counts():
    size = {"parameters": 800.0, "bytes": 100.0}
    made = [
        *rows("prior-w", view30_identity=0.5, view30_psnr=20.0, parameters=0.0, bytes=1.0),
        *rows("full", view30_identity=0.9, view30_psnr=24.0, floaters=0.5, parameters=8000.0, bytes=2000.0),
        *rows("full", photos=1, view30_identity=0.4, floaters=0.9, **size),
        *rows("lora", 1, view30_identity=0.8, view30_psnr=25.0, floaters=0.7, **size),
        *rows("lora", 1, photos=1, view30_identity=0.6, floaters=0.8, **size),
    ]
    found = findings(summarise(made))
    assert len(found) == 2
    assert "on 50 photos" in found[0] and "75% in identity and 125% in PSNR" in found[0]
    assert found[1].endswith(
        "from 1 photo better in 2 and worse in 0 of 2 figures, "
        "from 50 photos better in 1 and worse in 2 of 3 figures."
    )
    # nothing is said of what is not there
    assert findings(summarise(rows("lora", 1, view30_identity=0.5))) == []
    assert costs_of_changes(summarise(made)) == []


def test_costs_of_changes_are_those_of_each_method():
    made = [
        *rows("full", heldout_psnr=20.0),
        *rows("lora", 1, heldout_psnr=19.0),
        *rows("full-changing", heldout_psnr=18.0),
        *rows("lora-changing", 1, heldout_psnr=18.5),
    ]
    assert costs_of_changes(summarise(made)) == [
        ["PSNR of held-out photos", "-0.50 [-0.50, -0.50]", "-2.00 [-2.00, -2.00]"]
    ]


def test_sheets_have_a_row_for_what_looks_different(tmp_path):
    methods = {"prior-w": 0, "full": 0, "full-pti": 0, "lora": 1, "lora-pti": 1, "lora-int8": 1}
    methods |= {"lora-placed": 1, "full-changing": 0, "lora-changing": 1}
    summary = summarise([row for method, rank in methods.items() for row in rows(method, rank, bytes=1.0)])
    assert set(methods_rows(tmp_path, "views", summary)) == {
        *("truth", "prior, W", "all weights", "all weights, PTI", "LoRA, rank 1", "LoRA, PTI, rank 1")
    }
    assert list(methods_rows(tmp_path, "samples", summary)) == [
        *("held-out photos", "prior, W", "all weights", "LoRA, rank 1")
    ]
    assert set(LEFT_OUT) == {"views", "photos", "samples", "interpolation"}
    given = ["learned from", "held-out photos"]
    Image.new("RGB", (3 * CELL, CELL)).save(tmp_path / "lora-changing-r1-50-w.learned.jpg")
    Image.new("RGB", (2 * CELL, CELL)).save(tmp_path / "truth.photos.jpg")
    files = changing_rows(tmp_path, summary)
    assert list(files) == [*given, "all weights, changing", "LoRA, changing, rank 1"]
    assert rows_sheet(files, None) is None  # no method drew any of it
    Image.new("RGB", (CELL, CELL)).save(tmp_path / "full-changing-50-w.photos.jpg")
    page = rows_sheet(changing_rows(tmp_path, summary), None)
    assert page is not None and page.height > 3 * CELL and page.width > 3 * CELL
