"""`my3dgen evaluate method`: the prior alone, full tuning and adapters, on people nothing was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from my3dgen.cli.verb import Verb

if TYPE_CHECKING:
    from my3dgen.evaluate.method import Asked


@dataclass(frozen=True, kw_only=True)
class EvaluateMethod(Verb):
    """Compare methods on synthetic people that no training has seen.

    Each person is learned by every method of the protocol and tested on held-out photos, true views and
    samples. Finished rows are kept: the same command goes on.

    my3dgen evaluate method --people 4 --methods prior-w,full,lora --out out/method
    my3dgen evaluate method --report out/method/results.json --write-docs docs
    my3dgen evaluate method --tune full --rates 3e-5 1e-4 3e-4 --out out/tuning
    """

    out: Annotated[Path, arg(aliases=["-o"])] = Path("out/method")
    """Folder for the work and results.json."""
    protocol: Path = Path("benches/protocol.json")
    """People, views, methods and their settings."""
    people: int | None = None
    """How many of the protocol's people; all by default."""
    methods: str | None = None
    """Methods with commas between; all by default."""
    photos: str | None = None
    """Numbers of photos with commas between; all by default."""
    prior: str = "mini"
    """Name or folder of the prior."""
    seed: int = 0
    """Of training, of samples and of the intervals; the people are the protocol's."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; all GPUs that are present are used."""
    processes: int = 1
    """Processes a GPU; several keep it busier."""
    known: Path | None = None
    """results.json of another run, such as one on another machine; its rows are not measured again where
    method and settings are the same."""
    report: Path | None = None
    """Measure nothing: tell what this results.json says."""
    write_docs: Path | None = None
    """Folder for results.md with its plots and pictures (needs the extra `report`)."""
    tune: str | None = None
    """Measure nothing but this method at several rates, on people of their own."""
    rates: tuple[float, ...] = ()
    """Learning rates to try, of bending for a method that bends around photos."""
    steps: int | None = None
    """Steps that go with the rates, if not the protocol's."""

    def run(self) -> dict:
        """Measure, or read results; returns them (or the table of rates)."""
        from my3dgen.errors import UserError

        if self.report is not None and self.tune is not None:
            raise UserError("--report reads results and --tune makes new ones; give one of them")
        if self.known is not None and (self.report is not None or self.tune is not None):
            raise UserError("--known goes with measuring rows, not with --report or --tune")
        if (self.rates or self.steps) and self.tune is None:
            raise UserError("--rates and --steps go with --tune METHOD")
        if self.write_docs is not None:
            from my3dgen.evaluate.method_plots import check_plots

            check_plots()
        if self.tune is not None:
            return self.try_rates(self.tune)
        from my3dgen.evaluate.method import RESULTS, evaluate_methods
        from my3dgen.evaluate.method_report import table, write_docs
        from my3dgen.evaluate.method_results_file import read_results

        if self.report is not None:
            results, source = read_results(self.report), self.report
        else:
            known = None if self.known is None else read_results(self.known)
            results, source = evaluate_methods(self.asked(), known), self.out / RESULTS
        if not self.json:
            print(table(results))
        if self.write_docs is not None:
            page = write_docs(results, source.parent, self.write_docs)
            if not self.json:
                print(f"look at {page}")
        return results

    def try_rates(self, method: str) -> dict:
        """The table of rates."""
        from my3dgen.evaluate.method import tune_method
        from my3dgen.evaluate.method_report import rates_table

        table = tune_method(self.asked(), method, self.rates, self.steps)
        if not self.json:
            print(rates_table(table))
        return {"rates": table}

    def asked(self) -> Asked:
        """The options as what is asked. Raises UserError."""
        from my3dgen.cli.device import chosen_device
        from my3dgen.evaluate.method import Asked
        from my3dgen.evaluate.method_protocol_file import read_protocol

        protocol = read_protocol(self.protocol)
        return Asked(
            prior=self.prior,
            protocol=protocol,
            out=self.out,
            people=len(protocol.people) if self.people is None else self.people,
            methods=None if self.methods is None else tuple(self.methods.split(",")),
            photos=None if self.photos is None else counts(self.photos),
            seed=self.seed,
            device=chosen_device(self.device),
            processes=self.processes,
        )

    def exit_code(self, result: dict) -> int:
        """1 when a row failed: the same command tries it again."""
        return 1 if result.get("failed") else 0

    def goes_on(self) -> bool:
        """Measuring does; reading results is short."""
        return self.report is None


def counts(words: str) -> tuple[int, ...]:
    """`1,5,10` as numbers. Raises UserError."""
    from my3dgen.errors import UserError

    try:
        return tuple(int(word) for word in words.split(","))
    except ValueError:
        raise UserError(f"--photos {words}: write numbers with commas between, such as 1,5,10") from None
