"""`my3dgen peft import`: the adapter in a PEFT folder into a person file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class PeftImport(Verb):
    """Make a person file of an adapter in a PEFT folder and the anchors of a person of the same prior."""

    folder: Positional[Path]
    """A PEFT folder."""
    person: Path
    """Person file that gives anchors, cameras and prior; it stays as it is."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """Person file to write."""
    prior: str | None = None
    """Name or folder of the prior; the person's own by default."""

    def run(self) -> dict:
        """Read, check against the prior, write."""
        from my3dgen.cli.subject import load_subject
        from my3dgen.output import check_output
        from my3dgen.peft_format import import_peft
        from my3dgen.person import new_person

        check_output(self.out, (".safetensors",), "a person file ends in .safetensors")
        prior, who = load_subject(self.person, self.prior, "cpu")
        assert who is not None
        adapter = import_peft(self.folder, prior.generator)
        made = {"adapter": "imported from a PEFT folder"}
        path = new_person(prior, adapter, who.anchors, made).save(self.out)
        if not self.json:
            print(f"person of rank {adapter.rank} is in {path}")
        return {"person_file": str(path), "rank": adapter.rank, "alpha": adapter.alpha}
