"""The page of performance holds what benches found, and its plot exists."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from my3dgen.bench.clock import Timing
from my3dgen.bench.machine import Ceilings
from my3dgen.bench.row import Peaks, Row, Work, report, row
from my3dgen.cli import json_values

BEST = Ceilings(4000.0, {"fp32": 50.0, "bf16": 700.0})
MACHINE = {"device": "A chip", "driver": "1.2.3", "torch": "9.8", "commit": "abc1234", "threads": 2}
FAST = "ffhq512-128 image, captured bf16"


def picture(name: str, batch: int, ms: float, psnr: float | None = 51.0) -> Row:
    work = Work(flop=305 * 10**9, shared=10**8, each=10**7)
    return row(name, batch, Timing(ms, 0.02), work=work, ceilings=BEST, arithmetic="bf16",
               peaks=Peaks(6500.0, 5200.0), psnr=psnr)  # fmt: skip


@pytest.fixture
def page(monkeypatch, tmp_path: Path):
    """The script, in a repository of its own."""
    path = Path(__file__).parents[1] / "scripts" / "performance_page.py"
    spec = importlib.util.spec_from_file_location("performance_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, folder in {"ROOT": ".", "RESULTS": "benches/results", "DOCS": "docs"}.items():
        monkeypatch.setattr(module, name, tmp_path / folder)
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    return module


def keep(page, kind: str, rows: list[Row], *, finished: bool = True, **other) -> None:
    """As `my3dgen bench KIND --out` does."""
    found = report({**MACHINE, **other}, BEST, rows, finished=finished)
    (page.RESULTS / f"{kind}.json").write_text(json.dumps(json_values(found)))


def written(page) -> str:
    page.main()
    return (page.DOCS / "performance.md").read_text(encoding="utf-8")


def cells(text: str, *first: str) -> list[str]:
    """The rest of the only line of a table that begins with these cells."""
    (line,) = re.findall(rf"^\| {re.escape(' | '.join(first))} \| (.*) \|$", text, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


def test_the_page_holds_what_was_measured(page) -> None:
    keep(page, "render", [picture(FAST, 16, 32.0), picture("ffhq512-128 image, eager fp32", 1, 9.0, None)])
    keep(page, "people", [picture("mini image, 4 people, captured bf16", 4, 8.0)])
    keep(page, "personalize", [row("mini personalization of 50 photos", 50, Timing(25_000.0, 0.0))])
    keep(
        page,
        "cpu",
        [row("mini image, fp32", 1, Timing(312.5, 4.0), psnr=float("inf"))],
        driver=None,
        commit=None,
    )
    text = written(page)
    # 305 GFLOP in 2 ms against 700 TFLOP/s; 260 MB in 32 ms against 4000 GB/s
    assert cells(text, FAST, "16") == ["32", "0.02", "500", "6.50", "51", "22%", "0%"]
    assert cells(text, "ffhq512-128 image, eager fp32", "1")[4] == ""
    assert cells(text, "mini image, 4 people, captured bf16", "4")[2] == "500"
    assert cells(text, "mini personalization of 50 photos", "50")[:4] == ["2.5e+04", "0", "2", ""]
    assert cells(text, "mini image, fp32", "1") == ["312.5", "4", "3.2", "", "", "", ""]
    assert cells(text, "pictures/s, batch 16") == ["93.6", ">= 500", "500"]
    assert cells(text, "GB at most, batch 16") == ["67", "<= 8", "6.5"]
    assert cells(text, "s from 50 photos to `mini`") == ["", "<= 30", "25"]
    assert cells(text, "speed of 16 people in a batch over that of one") == ["", ">= 0.9", ""]  # not measured
    assert "A chip, driver 1.2.3, torch 9.8, commit abc1234. At best it copied 4000 GB/s" in text
    assert "A chip, torch 9.8. At best" in text
    assert "<!--" not in text and "None" not in text and "stopped" not in text
    (link,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    with Image.open(page.DOCS / link) as plot:
        colours = plot.convert("RGB").getcolors(1 << 24)
    assert (31, 119, 180) in {colour for _, colour in colours or ()}  # a stage's point


def test_what_is_missing_is_told(page) -> None:
    name = "ffhq512-128 image, {}, captured bf16"
    rows = [picture(name.format("1 person"), 16, 9.0), picture(name.format("16 people"), 16, 10.0)]
    keep(page, "people", rows, finished=False)
    text = written(page)
    assert cells(text, "speed of 16 people in a batch over that of one") == ["", ">= 0.9", "0.9"]
    assert text.count("The bench was stopped before its end") == 1
    assert text.count("Not measured.") == 3
    assert "<!--" not in text and "![" not in text


def test_nothing_to_tell(page) -> None:
    with pytest.raises(SystemExit, match="holds no results"):
        page.main()


def test_history_is_what_git_remembers_and_what_is_new(page, monkeypatch) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "somebody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "somebody@example.org")

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(page.ROOT), *words], check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet")
    keep(page, "render", [picture(FAST, 16, 80.0), picture(FAST, 1, 7.0)])
    git("add", ".")
    git("commit", "--quiet", "-m", "slow")
    slow = git("rev-parse", "HEAD")[:7]
    keep(page, "people", [picture(FAST, 4, 8.0)])
    git("add", ".")
    git("commit", "--quiet", "-m", "another bench")
    keep(page, "render", [picture(FAST, 16, 32.0), picture("ffhq512-128 volume, captured bf16", 16, 8.0)])
    text = written(page)
    assert cells(text, slow) == ["200", "7", "", ""]
    assert git("rev-parse", "HEAD")[:7] not in text  # it changed none of these figures
    assert cells(text, "now") == ["500", "", "0.5", ""]
