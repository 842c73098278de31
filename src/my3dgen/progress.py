"""Progress with an estimate, on stderr, so that stdout stays free for results."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(
    items: Iterable[Item], description: str, total: int | None = None, initial: int = 0
) -> Iterator[Item]:
    """Yield `items` while a bar with the remaining time is drawn on stderr.

    `initial` counts steps done by an earlier, resumed run. Without a terminal one line is
    written every 15 seconds at most, so logs stay short.
    """
    from tqdm import tqdm

    interactive = sys.stderr.isatty()
    yield from tqdm(
        items,
        desc=description,
        total=total,
        initial=initial,
        file=sys.stderr if interactive else _WholeLines(),
        mininterval=0.2 if interactive else 15.0,
        miniters=1,  # look at the clock at every step: steps differ in length
        dynamic_ncols=interactive,
        leave=True,
    )


def say(line: str) -> None:
    """Write one line for the person who waits (stderr), above the bar if one is drawn.

    What does not print, such as a line break in the name of a file, is shown as a question mark.
    """
    line = "".join(character if character.isprintable() else "?" for character in line)
    bars = sys.modules.get("tqdm")
    if bars is not None and sys.stderr.isatty():
        bars.tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


class _WholeLines:
    """Where a bar writes in a log: every state on a line of its own, nothing overwritten."""

    def write(self, text: str) -> None:
        if text := text.strip():
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Lines are flushed as they are written."""
