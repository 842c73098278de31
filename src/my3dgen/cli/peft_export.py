"""`my3dgen peft export`: a person's adapter as a PEFT folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class PeftExport(Verb):
    """Write a person's adapter as a PEFT folder: adapter_config.json and adapter_model.safetensors.

    The person's anchors and cameras, which PEFT has no place for, stay in the person file.
    """

    person: Positional[Path]
    """A person file."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """New folder."""

    def run(self) -> dict:
        """Write the folder whole or not at all."""
        from my3dgen.peft_format import export_peft
        from my3dgen.person import Person

        person = Person.load(self.person)
        folder = export_peft(person.adapter, self.out, base=person.card.prior)
        if not self.json:
            print(f"adapter of rank {person.adapter.rank} is in {folder}")
        return {"folder": str(folder), "rank": person.adapter.rank, "alpha": person.adapter.alpha}
