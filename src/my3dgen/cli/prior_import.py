"""`my3dgen prior import`: a checkpoint of one's own becomes a prior."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class PriorImport(Verb):
    """Bring your own EG3D checkpoint: EG3D's .pkl, a My3DGen snapshot, or a G_ema state dict.

    The file is read as inert data: nothing in it runs, and anything unexpected is refused by name.
    NVIDIA's checkpoints are licensed for non-commercial use; the prior's card repeats that.
    """

    file: tyro.conf.Positional[Path]
    """The checkpoint."""
    name: str
    """Name of the new prior."""
    like: str | None = None
    """Preset that says how the generator is built, for files that hold weights only."""
    lora_alpha: float | None = None
    """LoRA alpha, for My3DGen snapshots that don't state it."""

    def run(self) -> dict:
        """Import, then load once to prove that the prior works."""
        from my3dgen.prior.eg3d_import import import_checkpoint
        from my3dgen.prior.store import load_prior

        folder = import_checkpoint(self.file, self.name, like=self.like, lora_alpha=self.lora_alpha)
        prior = load_prior(folder)
        result = {
            "name": prior.name,
            "folder": str(folder),
            "parameters": prior.generator.parameter_count,
            "sha256": prior.sha256,
        }
        if not self.json:
            print(f"{prior.name}: {result['parameters']:,} parameters, in {folder}")
            print("NVIDIA's EG3D weights are for non-commercial use; see card.md there.")
        return result
