import json
import math
from dataclasses import replace

import pytest
import torch

from my3dgen import cli
from my3dgen.errors import FileFormatError, UserError
from my3dgen.evaluate import method
from my3dgen.evaluate.method import Asked, RowPlan, evaluate_methods, tune_method
from my3dgen.evaluate.method_bench import Bench
from my3dgen.evaluate.method_claims import CLAIMS
from my3dgen.evaluate.method_known import known_rows
from my3dgen.evaluate.method_people import read_case
from my3dgen.evaluate.method_protocol_file import parse_protocol
from my3dgen.evaluate.method_report import table, write_docs
from my3dgen.evaluate.method_results_file import is_row, read_results
from my3dgen.evaluate.method_sheets import draw_sheets, squares
from my3dgen.evaluate.method_workers import Job, Workers
from my3dgen.person import Person
from my3dgen.prior.store import load_prior

ROWS = 14


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Where the benchmark ran; tests of this file share it and run in order."""
    return tmp_path_factory.mktemp("method")


@pytest.fixture
def asked(toy_protocol, tiny_prior, work):
    return Asked(
        prior=str(tiny_prior.folder), protocol=parse_protocol(toy_protocol), out=work / "out", people=2
    )


def test_the_whole_benchmark(asked, work, tiny_prior):
    report = evaluate_methods(asked)
    summary = report.pop("summary")
    assert report == json.loads((work / "out" / "results.json").read_text())
    assert read_results(work / "out" / "results.json") == report | {"summary": summary}
    rows = report["rows"]
    assert len(rows) == 2 * ROWS and report["failed"] == 0
    assert report["prior_sha256"] == tiny_prior.sha256 and report["device"] == "cpu" and report["commit"]
    for row in rows:
        numbers = [v for v in row.values() if isinstance(v, float)]
        assert all(map(math.isfinite, numbers)) and len(numbers) > 20
        assert set(row["by_yaw"]) == {"-30", "0", "30"}
        assert 0 <= row["floaters"] <= 1 and 0 <= row["depth_missed"] <= 1
    by_name = {(r["method"], r["rank"], r["photos"]): r for r in rows if r["person"] == rows[0]["person"]}
    prior, full = by_name["prior-w", 0, 5], by_name["full", 0, 5]
    lora, wide = by_name["lora", 1, 5], by_name["lora", 2, 5]
    assert prior["parameters"] == 0 < lora["parameters"] < wide["parameters"] < full["parameters"]
    assert prior["bytes"] < lora["bytes"] < full["bytes"]
    assert by_name["pti", 0, 0]["samples_identity"] is None
    assert by_name["lora", 1, 1]["interpolation_least"] is None  # one anchor leads nowhere
    assert by_name["control", 1, 5]["heldout_psnr"] != lora["heldout_psnr"]
    bent, all_bent = by_name["lora-pti", 1, 5], by_name["full-pti", 0, 5]
    assert bent["bytes"] == lora["bytes"] and bent["heldout_psnr"] != lora["heldout_psnr"]
    # learned as without, up to what bending changes
    assert all_bent["parameters"] == full["parameters"] and all_bent["bytes"] == full["bytes"]
    assert all_bent["samples_identity"] == full["samples_identity"]
    assert all_bent["heldout_psnr"] != full["heldout_psnr"]
    narrow, small = by_name["lora-int8", 1, 5], by_name["lora-small", 2, 5]
    assert narrow["bytes"] < 0.8 * lora["bytes"] and narrow["parameters"] == lora["parameters"]
    assert narrow["heldout_psnr"] == pytest.approx(lora["heldout_psnr"], abs=0.5)
    assert 0 < small["parameters"] <= 2000 < lora["parameters"]
    placed = Person.load(work / "out" / "people" / str(lora["person"]) / "lora-placed-r1-5-w.safetensors")
    ranks = {rank for path, rank in placed.adapter.ranks.items() if ".b16." in path and "conv" in path}
    assert 2 in ranks and not any(".b8.conv1.weight" in path for path in placed.adapter.ranks)
    folder = work / "out" / "people" / str(lora["person"])
    changing = by_name["lora-changing", 1, 5]
    assert changing["parameters"] == lora["parameters"] and changing["heldout_psnr"] != lora["heldout_psnr"]
    assert by_name["full-changing", 0, 5]["heldout_psnr"] != full["heldout_psnr"]
    assert len(squares(folder / "pictures" / "lora-changing-r1-5-w.learned.jpg")) == 5
    still, moving = (folder / album / "taken" / "photos" for album in (".", "changing"))
    same = {f.name: f.read_bytes() == (moving / f.name).read_bytes() for f in still.iterdir()}
    assert same == {f"photo{k:02d}.jpg": k == 5 for k in range(6)}  # only the held-out one
    file = folder / "lora-r1-5-w.safetensors"
    assert lora["bytes"] == file.stat().st_size and len(Person.load(file, tiny_prior).anchors) == 5
    # one picture a yaw, and the truth beside
    assert len(squares(folder / "pictures" / "full-5-w.views.jpg")) == 3
    assert len(squares(folder / "pictures" / "truth.views.jpg")) == 3


def test_what_is_done_is_kept_and_what_is_missing_is_made_by_other_processes(asked, work, monkeypatch):
    before = json.loads((work / "out" / "results.json").read_text())
    monkeypatch.setattr(Bench, "measure", lambda *_: pytest.fail("measured again"))
    assert evaluate_methods(asked)["rows"] == before["rows"]
    monkeypatch.undo()
    person = asked.protocol.people[0]
    (work / "out" / "people" / str(person) / "stages" / "lora-r1-5-w.json").unlink()
    told, run = [], Workers.run

    def told_run(self, jobs):
        for job, result in run(self, jobs):
            told.append(job)
            yield job, result

    monkeypatch.setattr(Workers, "run", told_run)
    again = evaluate_methods(Asked(**(vars(asked) | {"processes": 2})))
    rows = [job.row for job in told if job.kind == "row"]
    # what was done is told first, also what comes late
    assert rows[-1].name == "lora-r1-5-w" and rows[-1].person == person and len(rows) == 2 * ROWS
    drop = ("seconds", "seconds_photo", "peak_memory_mb")
    for old, new in zip(before["rows"], again["rows"], strict=True):
        assert old.keys() == new.keys()
        for name in old.keys() - {*drop, "by_yaw"}:
            # a process with fewer threads rounds otherwise
            number = isinstance(old[name], float)
            assert new[name] == (pytest.approx(old[name], rel=1e-2, abs=1e-2) if number else old[name]), name


def test_a_failed_row_is_recorded_and_tried_again(asked, work, monkeypatch):
    person = asked.protocol.people[1]
    stamp = work / "out" / "people" / str(person) / "stages" / "full-5-w.json"
    stamp.unlink()

    def broken(*_, **__):
        raise UserError("personalization diverged at step 1")

    monkeypatch.setattr("my3dgen.evaluate.method_bench.learn", broken)
    report = evaluate_methods(asked)
    (failed,) = [row for row in report["rows"] if "error" in row]
    assert failed == {
        "person": person,
        "method": "full",
        "rank": 0,
        "photos": 5,
        "anchors": "w",
        "error": "personalization diverged at step 1",
    }
    page = write_docs(report, work / "out", work / "docs").read_text()
    assert "not yet all by each" in page and "learned by each method" not in page
    assert report["failed"] == 1 and f"1 of {2 * ROWS} rows failed" in table(report) and not stamp.exists()
    full = next(entry for entry in report["summary"] if entry["method"] == "full")
    assert full["people"] == 1
    monkeypatch.undo()
    assert evaluate_methods(asked)["failed"] == 0


def test_a_run_that_is_stopped_leaves_its_finished_rows(asked, work, tmp_path, monkeypatch):
    known = read_results(work / "out" / "results.json")
    some = known | {"rows": known["rows"][: ROWS - 1]}
    here = Asked(**(vars(asked) | {"out": tmp_path}))

    written = []

    def measured(place, rows, plan):
        yield rows[0], known["rows"][ROWS - 1]
        written.append((tmp_path / "results.json").exists())
        raise KeyboardInterrupt

    monkeypatch.setattr(method, "measure", measured)
    with pytest.raises(KeyboardInterrupt):
        evaluate_methods(here, some)
    monkeypatch.setattr(method, "WRITE_EVERY", 0)
    (tmp_path / "results.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        evaluate_methods(here, some)
    left = read_results(tmp_path / "results.json")
    assert left["rows"] == known["rows"][:ROWS] and left["left"] == ROWS
    assert written == [False, True]
    assert f"{ROWS} rows are not measured yet" in table(left) and "not measured yet" not in table(known)

    def measured_to_the_end(place, rows, plan):
        yield from zip(rows, known["rows"][ROWS:], strict=True)

    monkeypatch.setattr(method, "measure", measured_to_the_end)
    assert evaluate_methods(here, left)["rows"] == known["rows"]

    def stopped_at_once(place, rows, plan):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(method, "measure", stopped_at_once)
    with pytest.raises(KeyboardInterrupt):
        evaluate_methods(here, some)
    assert read_results(tmp_path / "results.json")["rows"] == known["rows"]


def test_rows_of_another_run_are_not_measured_again(asked, work, tmp_path):
    known = read_results(work / "out" / "results.json")
    protocol = asked.protocol
    changed = [
        replace(entry, training=replace(entry.training, rate=0.5)) if entry.method == "full" else entry
        for entry in protocol.methods
    ]
    here = Asked(
        **(
            vars(asked)
            | {"out": tmp_path, "people": 1, "methods": ("lora", "full", "control"), "photos": (5,)}
        )
    )
    report = evaluate_methods(here, known)
    before = {(r["person"], r["method"], r["rank"], r["photos"]): r for r in known["rows"]}
    assert all(
        row == before[row["person"], row["method"], row["rank"], row["photos"]] for row in report["rows"]
    )
    assert report["earlier"]["rows"] == len(report["rows"]) and not (tmp_path / "people").exists()
    assert read_results(tmp_path / "results.json")["earlier"] == report["earlier"]
    prior = load_prior(here.prior)
    rows = protocol.rows(protocol.people)
    other = replace(protocol, methods=tuple(changed))
    left = set(other.rows(protocol.people)) - set(
        known_rows(known, other.rows(protocol.people), other, prior, 0).rows
    )
    assert {row.method for row in left} == {"full"}
    elsewhere = replace(protocol, tuning_people=(1_099_991_007,))
    assert len(known_rows(known, rows, elsewhere, prior, 0).rows) == len(rows)
    failed = known | {"rows": [known["rows"][0] | {"error": "no"}, *known["rows"][1:]]}
    assert len(known_rows(failed, rows, protocol, prior, 0).rows) == len(rows) - 1
    for name, asking in {"seed": (protocol, 1), "yaws": (replace(protocol, yaws=(0,)), 0)}.items():
        with pytest.raises(UserError, match=f"another {name}"):
            known_rows(known, rows, asking[0], prior, asking[1])
    then = known | {"adapter_rates": {"convolution": 1.0}}
    kept = known_rows(then, rows, protocol, prior, 0).rows
    assert {row.method for row in kept} == {"prior-w", "full", "full-pti", "full-changing", "pti"}
    then = known | {"album_changes": known["album_changes"] | {"stream": 1}}
    left = set(rows) - set(known_rows(then, rows, protocol, prior, 0).rows)
    assert {row.method for row in left} == {"full-changing", "lora-changing"}
    with pytest.raises(UserError, match="another prior"):
        known_rows(known, rows, protocol, replace(prior, sha256="0"), 0)


def test_rows_of_some_methods_and_photos(asked, work):
    few = evaluate_methods(Asked(**(vars(asked) | {"people": 1, "methods": ("lora",), "photos": (1,)})))
    assert [row["method"] for row in few["rows"]] == ["lora"] and few["people"] == 1
    with pytest.raises(UserError, match="--people 3 is out of range; choose 1 to 2"):
        evaluate_methods(Asked(**(vars(asked) | {"people": 3})))


def test_photos_are_nested_and_begin_with_the_most_frontal(asked, work):
    seed = asked.protocol.people[0]
    bench = Bench(load_prior(asked.prior), asked.protocol, asked.out, 0)
    case = bench.person(seed)
    frontal = case.learn.cameras[:, 11]  # of a camera that is 2.7 away from the head
    assert frontal[0] == frontal.max() and len(case.learn) == 5 and len(case.test) == 1
    assert set(case.learn.names).isdisjoint(case.test.names)
    stages = bench.stages(seed)
    bench.person(seed, stages)
    photos, views = (stages.stamps[name]["answer"] for name in ("photos", "views"))
    again = read_case(seed, photos, views, bench.folder(seed))
    assert again.learn.names == case.learn.names
    (moment,) = case.moments
    assert moment.yaws == (-30, 0, 30) and moment.source == 1
    masks = moment.album.masks
    assert masks is not None and set(masks.unique().tolist()) <= {0, 1}
    head = moment.depth > 0
    assert head.any() and moment.depth[head].min() > 2 and moment.depth[head].max() < 3.4
    # the photo is white where the exact mask has no head
    background = moment.album.images.mean(1)[masks[:, 0] == 0]
    assert (background > 0.8).float().mean() > 0.9


def test_jobs_wait_for_what_they_need(asked):
    protocol = asked.protocol
    rows = protocol.rows(protocol.people[:1])
    phases = RowPlan(protocol, protocol.people[:1]).phases(rows)
    kinds = [[job.kind for job in jobs] for jobs in phases]
    # the control's adapter is that of a person who has no rows here
    assert kinds[0] == ["person"] * 2 and kinds[1] == ["album"] and kinds[2] == ["anchors"] * 5
    assert kinds[3].count("model") == 1 and kinds[3].count("row") == ROWS - 3 and kinds[4] == ["row"] * 3


def test_rates_are_compared_on_people_of_their_own(asked, work):
    table_of_rates = tune_method(
        Asked(**(vars(asked) | {"out": work / "tuning"})), "lora", [1e-4, 5e-2], steps=3
    )
    assert [row["rate"] for row in table_of_rates] == [1e-4, 5e-2]
    slow, fast = (row["heldout_psnr"] for row in table_of_rates)
    assert slow != fast and not any(row["errors"] for row in table_of_rates)
    people = {path.name for path in (work / "tuning" / "people").iterdir()}
    assert people == {str(seed) for seed in asked.protocol.tuning_people}
    bent = tune_method(Asked(**(vars(asked) | {"out": work / "tuning"})), "full-pti", [1e-5, 1e-2], steps=2)
    assert bent[0]["heldout_psnr"] != bent[1]["heldout_psnr"] and not any(row["errors"] for row in bent)
    with pytest.raises(UserError, match="has no rate of its own"):
        tune_method(asked, "prior-w", [1e-3], None)
    with pytest.raises(UserError, match="--rates"):
        tune_method(asked, "lora", [], None)


def test_the_page_is_written_from_the_results(asked, work, tmp_path, capsys):
    results = read_results(work / "out" / "results.json")
    evaluate_methods(asked)
    page = write_docs(read_results(work / "out" / "results.json"), work / "out", tmp_path)
    text = page.read_text()
    for word in (
        "prior, W",
        "prior, PTI",
        "all weights",
        "LoRA, rank 1",
        "another's LoRA",
        "## 6. ",
        "122 times fewer",
    ):
        assert word in text
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    linked = {part.split(")")[0] for part in text.split("](pictures/")[1:]}
    assert linked == names and {"method_yaw.png", "method_views.jpg", "method_changing.jpg"} <= names
    assert "\n\n\n\n" not in text and "None" not in text and "nan" not in text
    # without the pictures of rows the figures alone are told
    assert draw_sheets(results, tmp_path / "nowhere", tmp_path / "none")["views"] is None
    assert cli.main(["evaluate", "method", "--report", str(work / "out" / "results.json")]) == 0
    assert "LoRA, rank 1" in capsys.readouterr().out


def test_the_page_says_what_is_not_in_it(work, tmp_path):
    results = read_results(work / "out" / "results.json")
    page = write_docs(results, work / "out", tmp_path).read_text()
    assert "learned by each method" in page and "not here" not in page
    first = results["rows"][0]["person"]
    rows = [
        row | {"error": "no"} if row["method"] == "pti" else row
        for row in results["rows"]
        if row["method"] != "prior-w"
    ]
    few = [row for row in results["rows"] if row["method"] == "prior-w" and row["person"] == first]
    rows = [row | {"peak_memory_mb": None} if row["method"] == "lora" else row for row in rows]
    assert all(map(is_row, rows)) and not is_row(results["rows"][0] | {"bytes": None})
    some = results | {"rows": rows + few, "left": 1, "failed": 2}
    page = write_docs(some, work / "out", tmp_path).read_text()
    assert f"2 of {2 * ROWS - 1} rows failed" in page and "1 rows of the protocol are not here" in page
    assert "not yet all by each" in page and "prior, PTI" not in page
    assert [
        line for line in page.splitlines() if line.startswith("| LoRA, rank 1 |") and line.endswith("| - |")
    ]
    # reasons are given where there is something to explain
    full = CLAIMS[2].why["full"]
    same = dict.fromkeys(CLAIMS[2].figures, 0.5)
    for identity, told in ((0.9, True), (0.1, False)):
        many = [
            row
            | same
            | {"person": row["person"] + 10 * n}
            | ({"heldout_identity": identity} if row["method"] == "full" else {})
            for row in results["rows"]
            for n in range(3)
        ]
        page = write_docs(results | {"rows": many}, work / "out", tmp_path).read_text()
        assert (full in page) == told


@pytest.mark.parametrize("content", ["", "[]", '{"prior": 1}', "[" * 100_000, "\x00"])
def test_other_files_hold_no_results(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(FileFormatError, match="write one with"):
        read_results(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("prior", "a\n# b", "'prior' is not a short line"),
        ("commit", "[x](http://x)", "'commit' is not a short line"),
        ("seed", -1, "'seed' is not a number"),
        ("protocol", {"format": 1}, "lacks"),
        ("earlier", {"rows": 1, "commit": "a", "torch": "b", "device": "[c]"}, "'earlier' does not say"),
        ("rows", [{"person": 1}], "'rows' are not"),
        ("rows", {}, "'rows' are not"),
    ],
)
def test_results_that_were_edited_are_refused(work, tmp_path, name, value, words):
    results = json.loads((work / "out" / "results.json").read_text())
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results | {name: value}))
    with pytest.raises(FileFormatError, match=words):
        read_results(path)
    row = results["rows"][0]
    for change in ({"method": "../x"}, {"by_yaw": {"x": {}}}, {"views_psnr": "high"}, {"bytes": None}):
        path.write_text(json.dumps(results | {"rows": [row | change]}))
        with pytest.raises(FileFormatError, match="'rows' are not"):
            read_results(path)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_prior_that_was_replaced_meanwhile_is_noticed(asked, tmp_path, processes):
    place = Asked(**(vars(asked) | {"processes": processes, "out": tmp_path})).place(
        load_prior(asked.prior), asked.protocol
    )
    row = asked.protocol.rows(asked.protocol.people[:1])[0]
    with (
        pytest.raises(UserError, match="was replaced meanwhile"),
        Workers(replace(place, prior_sha256="0" * 64)) as workers,
    ):
        ((_, result),) = workers.run([Job("row", row)])
        raise UserError(result["error"])


def test_one_benchmark_at_a_time(tmp_path):
    with (
        method.taken(tmp_path / "out"),
        pytest.raises(UserError, match="another benchmark is at work"),
        method.taken(tmp_path / "out"),
    ):
        pass
    with method.taken(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "absent.json"], "cannot be read"),
        (["--rates", "0.1"], "go with --tune"),
        (["--tune", "lora", "--report", "x.json"], "give one of them"),
        (["--known", "x.json", "--report", "x.json"], "--known goes with measuring"),
        (["--known", "absent.json"], "absent.json cannot be read"),
        (["--photos", "one"], "write numbers with commas"),
        (["--methods", "lara"], "no method 'lara'"),
        (["--processes", "0"], "--processes 0 is out of range"),
    ],
)
def test_wrong_options_are_told_at_once(toy_protocol, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.json").write_text(json.dumps(toy_protocol))
    assert cli.main(["evaluate", "method", "--protocol", "toy.json", *words]) == 2
    assert message in capsys.readouterr().err


def test_device_memory_is_counted_where_there_is_one():
    from my3dgen.evaluate.method_learn import forget_peak_memory, peak_memory_mb

    forget_peak_memory(torch.device("cpu"))
    assert 10 < peak_memory_mb(torch.device("cpu")) < 1e6
