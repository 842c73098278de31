"""`my3dgen demo`: the bundled album through the whole path, and a report of what came out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Demo(Verb):
    """Make a person from the bundled photos, test it on photos and views it never saw, and draw everything.

    Finished stages are kept: stopped with Ctrl-C, the same command goes on.
    """

    out: Annotated[Path, arg(aliases=["-o"])] = Path("out/demo")
    """Folder for the results; look at report.html."""
    compare: bool = False
    """Tune all weights, too, as a third method (longer)."""
    quality: Literal["draft", "standard", "max"] = "standard"
    """How long to work; standard takes about a quarter of an hour on two CPU cores."""
    album: Path | None = None
    """Another folder made by `my3dgen synthetic album`; the bundled one by default."""
    prior: str = "mini"
    """Name or folder of the prior."""

    def run(self) -> dict:
        """Run the stages; returns the report."""
        from my3dgen.evaluate.demo import BUNDLED, DemoConfig, run_demo
        from my3dgen.evaluate.report import readable_size, readable_time, table

        config = DemoConfig(
            out=self.out,
            album=self.album or BUNDLED,
            prior=self.prior,
            quality=self.quality,
            compare=self.compare,
        )
        report = run_demo(config)
        if not self.json:
            size, time = report["person_file_bytes"], sum(report["seconds"].values())
            print(table(report))
            print(f"person file: {readable_size(size)}, {self.out / report['person_file']}")
            print(f"{readable_time(time)} of work, at most {report['peak_rss_mb']} MB of memory")
            print(f"look at {self.out / 'report.html'}")
        return report

    def goes_on(self) -> bool:
        """It does."""
        return True
