"""A chain of stages that can be stopped at any time and run again.

Each finished stage leaves a stamp: what it was asked, what it found, how long it took. Running the
chain again skips every stage whose stamp answers the same question, and redoes the others.
"""

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from my3dgen.output import whole
from my3dgen.progress import say


def fingerprint(question: object) -> str:
    """A short hash of anything JSON can hold."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]


def write_json(path: Path, content: object) -> None:
    """Write a JSON file beside and rename, so that a reader never sees half of it."""
    with whole(path) as beside:
        beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def peak_rss_mb() -> float:
    """The largest memory this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


@dataclass
class Stages:
    """Runs named stages in order, keeping their stamps in `folder`."""

    folder: Path
    stamps: dict[str, dict[str, Any]] = field(default_factory=dict)
    talks: bool = True
    """Whether a line on stderr says what is done and what was kept."""

    def run(self, name: str, question: object, work: Callable[[], Any], needs: tuple[str, ...] = ()) -> Any:
        """The answer of `work()` (JSON), from the stamp if `question` and `needs` are unchanged.

        `question` is everything the answer depends on besides the earlier stages named in `needs`.
        A stage that is stopped leaves no stamp; its files are its own affair.
        """
        asked = fingerprint([name, question, [self.stamps[need]["asked"] for need in needs]])
        path = self.folder / f"{name}.json"
        stamp = read_stamp(path)
        if stamp.get("asked") == asked:
            self.tell(f"{name}: done before ({stamp['seconds']:.0f} s), kept")
        else:
            self.tell(f"{name} ...")
            path.unlink(missing_ok=True)  # its files are about to change: the old stamp no longer holds
            started = time.perf_counter()
            answer = work()
            seconds = time.perf_counter() - started
            stamp = {
                "asked": asked,
                "seconds": round(seconds, 1),
                "peak_rss_mb": round(peak_rss_mb()),
                "answer": answer,
            }
            write_json(path, stamp)
            self.tell(f"{name}: {seconds:.0f} s")
        self.stamps[name] = stamp
        return stamp["answer"]

    def tell(self, line: str) -> None:
        """Say it, if anyone shall hear."""
        if self.talks:
            say(line)

    def seconds(self) -> dict[str, float]:
        """Seconds of work by stage, of the run that did the work."""
        return {name: stamp["seconds"] for name, stamp in self.stamps.items()}

    def peak_rss_mb(self) -> int:
        """The largest memory any stage ended with, over all the runs that did the work."""
        return max((stamp["peak_rss_mb"] for stamp in self.stamps.values()), default=0)


def read_stamp(path: Path) -> dict[str, Any]:
    """A stamp, or an empty one if there is none or it cannot be read: then the stage runs again."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        stamp
        if isinstance(stamp, dict) and {"asked", "seconds", "peak_rss_mb", "answer"} <= set(stamp)
        else {}
    )
