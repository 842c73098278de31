"""The benchmark of methods: what a small adapter keeps of a person that the prior and full tuning do not.

Synthetic people that nothing was trained on are learned by every method of a protocol
(`method_protocol`), then tested on held-out photos, on true views from other sides, and on what their
alpha-space holds (`method_bench`). Results are rows, one a person and method, and their summary.
"""

import itertools
import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from my3dgen import __version__
from my3dgen.errors import UserError
from my3dgen.evaluate.method_bench import anchors_name, lender, stamp_of
from my3dgen.evaluate.method_known import Known, known_rows
from my3dgen.evaluate.method_people import ALBUM_CHANGES
from my3dgen.evaluate.method_protocol import BENT, BORROWING, CHANGING, RATED, Protocol, Row
from my3dgen.evaluate.method_summary import summarise
from my3dgen.evaluate.method_workers import Job, Place, Result, Workers
from my3dgen.evaluate.metrics import IDENTITY_NETWORK, PERCEPTUAL_NETWORK
from my3dgen.evaluate.prior import device_name
from my3dgen.output import whole
from my3dgen.prior.store import Prior, load_prior
from my3dgen.progress import say
from my3dgen.rates import FACTORS
from my3dgen.revision import commit

RESULTS = "results.json"
WRITE_EVERY = 20
"""Seconds at least between two writings of results while rows are made."""
TUNED_BY = ("heldout_psnr", "heldout_perceptual", "heldout_identity", "views_psnr", "views_identity")
"""Figures of a table of rates."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is measured, and where."""

    prior: str
    protocol: Protocol
    out: Path
    people: int
    """The first so many of the protocol's."""
    methods: tuple[str, ...] | None = None
    """Of the protocol's, all by default."""
    photos: tuple[int, ...] | None = None
    """Numbers of photos, all by default."""
    seed: int = 0
    device: str = "cpu"
    processes: int = 1

    def check(self) -> None:
        """Raises UserError for a number out of range."""
        limits = {
            "people": (1, len(self.protocol.people)),
            "seed": (0, 2**32 - 1),
            "processes": (1, 64),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"--{name} {getattr(self, name)} is out of range; choose {low} to {high}")

    def place(self, prior: Prior, protocol: Protocol) -> Place:
        """Where the work is done, with the prior that was asked for."""
        return Place(
            prior=self.prior,
            prior_sha256=prior.sha256,
            protocol=protocol,
            out=self.out,
            seed=self.seed,
            device=self.device,
            processes=self.processes,
        )


def evaluate_methods(asked: Asked, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Measure all rows not measured before; returns what OUT/results.json holds, and its summary.

    `known` are checked results of another run, whose rows are kept where they answer the same. The file is
    written while rows are made, too, so that a run that was stopped leaves those it finished. A row that
    fails is recorded with its error and tried again by the next call. Raises UserError for a prior that
    does not draw heads on white, a value out of range, known results of something else, or a process that
    died.
    """
    asked.check()
    protocol = asked.protocol
    people = protocol.people[: asked.people]
    rows = protocol.rows(people, asked.methods, asked.photos)
    prior = checked_prior(asked.prior)
    earlier = Known({}, None) if known is None else known_rows(known, rows, protocol, prior, asked.seed)
    left = [row for row in rows if row not in earlier.rows]
    made, written = dict(earlier.rows), time.monotonic()

    def write() -> dict[str, Any]:
        report = assemble(asked, prior, rows, made, earlier.source)
        write_results(asked.out / RESULTS, report)
        return report

    working = measure(asked.place(prior, protocol), left, RowPlan(protocol, people))
    with taken(asked.out), closing(working):
        try:
            for row, result in working:
                made[row] = result
                if time.monotonic() - written >= WRITE_EVERY:
                    write()
                    written = time.monotonic()
        except BaseException:
            if len(made) > len(earlier.rows):  # else what an earlier run wrote stays
                write()
            raise
        report = write()
        return report | {"summary": summarise(report["rows"], asked.seed)}


def tune_method(asked: Asked, method: str, rates: Sequence[float], steps: int | None) -> list[dict[str, Any]]:
    """The figures of a method at several rates, the means over the protocol's `tuning_people`.

    Of the method's entries in the protocol the first counts, with its most photos; of a method that bends
    around photos the rates and steps are those of bending. Raises UserError for a method without a rate or
    a value out of range, and as `evaluate_methods`.
    """
    asked.check()
    if method not in RATED:
        raise UserError(f"'{method}' has no rate of its own; choose one of {', '.join(RATED)}")
    if not rates or any(not 0 < rate <= 1 for rate in rates):
        raise UserError("--rates are numbers above 0 and up to 1, such as 0.001 0.002")
    if steps is not None and not 1 <= steps <= 1_000_000:
        raise UserError(f"--steps {steps} is out of range; choose 1 to 1000000")
    people = asked.protocol.tuning_people
    protocol = replace(asked.protocol, people=people)
    first = [max(protocol.rows([p], [method]), key=lambda row: row.photos) for p in people]
    part = "pivoting" if method in BENT else "training"
    rows: dict[float, list[Row]] = {}
    for rate in rates:
        for row in first:
            now = getattr(row, part)
            tried = replace(now, rate=rate, steps=steps or now.steps)
            named = {part: tried, "variant": f"-{tried.steps}-{rate:g}"}
            rows.setdefault(rate, []).append(replace(row, **named))
    prior = checked_prior(asked.prior)
    with taken(asked.out):
        every = [row for of_rate in rows.values() for row in of_rate]
        made = dict(measure(asked.place(prior, protocol), every, RowPlan(protocol, people)))
    table = []
    for rate in rows:
        of_rate = [made[row] for row in rows[rate]]
        errors = [result["error"] for result in of_rate if "error" in result]
        (summary,) = summarise([r for r in of_rate if "error" not in r]) or [{"figures": {}}]
        figures = {n: summary["figures"][n]["mean"] for n in TUNED_BY if n in summary["figures"]}
        table.append({"method": method, "rate": rate, "people": len(of_rate)} | figures | {"errors": errors})
    return table


@dataclass(frozen=True)
class RowPlan:
    """In which order work is done."""

    protocol: Protocol
    people: Sequence[int]

    def phases(self, rows: Sequence[Row]) -> list[list[Job]]:
        """Jobs in groups; those of a group may run side by side, each group needs those before it.

        The longest rows come first, so that no process is left alone with one at the end.
        """
        late = [row for row in rows if row.method in BORROWING]
        borrowed = [lender(row, self.protocol) for row in late]
        needed = [*rows, *borrowed]
        changing = {row.person: row for row in rows if row.method in CHANGING}
        anchors = {(row.person, anchors_name(row)): row for row in needed if row.photos}
        others = [row for row in rows if row not in late]
        extra = [row for row in dict.fromkeys(borrowed) if row not in others]
        learning = [Job("row", row) for row in others] + [Job("model", row) for row in extra]
        return [
            [Job("person", row) for row in {row.person: row for row in needed}.values()],
            [Job("album", row) for row in changing.values()],
            [Job("anchors", row) for row in sorted(anchors.values(), key=lambda row: -row.photos)],
            sorted(learning, key=lambda job: -work_of(job.row, self.protocol)),
            [Job("row", row) for row in sorted(late, key=lambda row: -work_of(row, self.protocol))],
        ]


def work_of(row: Row, protocol: Protocol) -> int:
    """Pictures that training sees, a rough measure of how long a row takes."""
    each = row.training if row.method == "pti" else row.pivoting
    once = 0 if row.training is None or row.method in ("pti", *BORROWING) else row.training
    times = protocol.album - protocol.learned + protocol.moments
    return (once.steps * once.batch if once else 0) + (each.steps * each.batch * times if each else 0)


def measure(place: Place, rows: Sequence[Row], plan: RowPlan) -> Generator[tuple[Row, Result], None, None]:
    """Do the work; every row with its result as soon as it is there."""
    if not rows:
        return
    # rows of an earlier run first, so that results which are cut short hold them
    before = [row for row in rows if stamp_of(place.out, row).exists()]
    others = [row for row in rows if row not in before]
    place.out.mkdir(parents=True, exist_ok=True)
    with Workers(place) as workers:
        for jobs in itertools.chain.from_iterable(map(plan.phases, (before, others))):
            for done, (job, result) in enumerate(workers.run(jobs), start=1):
                said = f": {result['error']}" if "error" in result else ""
                name = "photos and views" if job.kind == "person" else job.row.name
                say(f"{job.kind} {done} of {len(jobs)}, {job.row.person} {name}{said}")
                if job.kind == "row":
                    yield job.row, job.row.key() | result


def assemble(
    asked: Asked,
    prior: Prior,
    rows: Sequence[Row],
    made: Mapping[Row, Result],
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The results as JSON values, rows in the order of the protocol; `earlier` tells whence the known are.

    The summary, which follows from the rows, is not among them.
    """
    results = [made[row] for row in rows if row in made]
    return {
        "my3dgen": __version__,
        "commit": commit(),
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "device": device_name(torch.device(asked.device)),
        "torch": torch.__version__,
        "earlier": earlier,
        "adapter_rates": FACTORS,
        "album_changes": ALBUM_CHANGES,
        "seed": asked.seed,
        "people": asked.people,
        "perceptual_network": PERCEPTUAL_NETWORK,
        "identity_network": IDENTITY_NETWORK,
        "protocol": asked.protocol.to_json(),
        "rows": results,
        "left": len(rows) - len(results),
        "failed": sum("error" in row for row in results),
    }


def write_results(path: Path, report: Mapping[str, Any]) -> None:
    """Results as a JSON file, a line for each row."""
    parts, close = [], (",", ":")
    for name, value in report.items():
        lines = [json.dumps(entry, separators=close) for entry in value] if isinstance(value, list) else []
        parts.append(f'"{name}": ' + ("[\n" + ",\n".join(lines) + "\n]" if lines else json.dumps(value)))
    with whole(path) as beside:
        beside.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def checked_prior(name: str) -> Prior:
    """The prior on the CPU. Raises UserError for one that does not draw heads on white."""
    prior = load_prior(name)
    if not prior.config.white_back:
        raise UserError(
            f"prior '{prior.name}' does not draw heads on white, so it can't show synthetic people"
        )
    return prior


@contextmanager
def taken(out: Path) -> Iterator[None]:
    """Holds a folder for one benchmark at a time. Raises UserError while another is at work in it."""
    import fcntl

    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another benchmark is at work in {out}; choose another --out") from None
        yield
