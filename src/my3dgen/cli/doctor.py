"""my3dgen doctor: what is present, what is missing, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from my3dgen.cli.verb import Verb

if TYPE_CHECKING:
    from my3dgen.doctor import Check

SIGNS = {"ok": "ok", "note": "note", "missing": "MISSING"}


@dataclass(frozen=True, kw_only=True)
class Doctor(Verb):
    """Look over this machine and this installation; nothing is changed and nothing is sent.

    Exit code 0 if my3dgen is usable here, 2 if something it needs is missing.
    """

    def run(self) -> dict:
        from dataclasses import asdict

        from my3dgen.doctor import examine

        checks = []
        for check in examine():
            checks.append(check)
            if not self.json:
                print(line(check), flush=True)
        usable = all(check.state != "missing" for check in checks)
        if not self.json:
            print("usable" if usable else "not usable yet: mend the lines marked MISSING")
        return {"usable": usable, "checks": [asdict(check) for check in checks]}

    def exit_code(self, result: dict) -> int:
        return 0 if result["usable"] else 2


def line(check: Check) -> str:
    """One line for people: state, name, what was found, and the remedy if there is one."""
    remedy = f"; {check.remedy}" if check.remedy else ""
    return f"{SIGNS[check.state]:<7}  {check.name:<26}  {check.found}{remedy}"
