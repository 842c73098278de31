"""What every verb shares."""

import abc
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verb(abc.ABC):
    """A verb's options are the fields of its dataclass; `run` does the work."""

    json: bool = False
    """Print one JSON object as the last thing on stdout, and nothing else there."""

    @abc.abstractmethod
    def run(self) -> dict:
        """Do the work; return what --json prints. Heavy imports belong in here.

        Text for people goes to stdout only when `self.json` is false; progress to stderr.
        """

    def exit_code(self, result: dict) -> int:
        """The exit code after `run` returned `result`: 0, unless the result itself is bad news."""
        return 0

    def goes_on(self) -> bool:
        """Whether the same command, run again after it was stopped, goes on where it was."""
        return False
