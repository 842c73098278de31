"""`my3dgen prior publish`: a training state to a prior people can use."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class PriorPublish(Verb):
    """Turn the state that `my3dgen prior train` left into a prior of this machine.

    What it draws at random follows how the latents of training heads are spread; a prior trained on pictures
    keeps the mapping it has learned, and has no encoder.
    """

    state: Positional[Path]
    """Folder of the training state."""
    name: str
    """Name of the new prior."""
    card: Path | None = None
    """Text of its model card; default: the counts of the training."""

    def run(self) -> dict:
        """Write the prior."""
        from dataclasses import asdict

        from my3dgen.pretrain.publish import publish
        from my3dgen.pretrain.state import describe, kind_of
        from my3dgen.prior.store import check_new_name

        folder = check_new_name(self.name)
        _, progress = describe(self.state)
        counts = "".join(f"- {name}: {value}\n" for name, value in asdict(progress).items())
        what = {"heads": "synthetic heads", "pictures": "pictures with cameras"}[kind_of(self.state)]
        card = f"# {self.name}\n\nTrained on {what}.\n\n{counts}"
        card = self.card.read_text() if self.card else card
        folder.parent.mkdir(parents=True, exist_ok=True)
        publish(self.state, folder, card)
        if not self.json:
            print(f"prior '{self.name}' is in {folder}")
        return {"name": self.name, "folder": str(folder)}
