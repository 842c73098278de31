"""`my3dgen synthetic dataset`: heads with exact labels in EG3D's dataset format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class SyntheticDataset(Verb):
    """An EG3D dataset of synthetic heads, with depth, masks, part labels and factors.

    Stop it at any time; the same command goes on.
    """

    out: Positional[Path]
    """Folder for images/, which is the EG3D dataset, and beside it masks/, parts/, depth/ and factors."""
    identities: int = 100
    """How many people."""
    expressions: int = 1
    """Scenes of each person, each with its own expression and light."""
    views: int = 4
    """Pictures of each scene."""
    resolution: int = 256
    """Pixels, a multiple of 64."""
    first_seed: int = 0
    """The first person; one seed a person."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to render."""
    batch: int = 1
    """Scenes rendered at once; 8 suits a large GPU."""

    def run(self) -> dict:
        """Render what is missing."""
        from my3dgen.cli.device import chosen_device
        from my3dgen.errors import UserError
        from my3dgen.progress import say
        from my3dgen.synthetic.dataset import IMAGES, DatasetConfig, write_dataset

        if self.batch < 1:
            raise UserError(f"--batch {self.batch}: choose at least 1")
        config = DatasetConfig(
            self.identities, self.expressions, self.views, self.resolution, self.first_seed
        )
        folder = write_dataset(self.out, config, device=chosen_device(self.device), batch=self.batch)
        images = folder / IMAGES
        say(f"{images}: {config.pictures} pictures of {config.identities} people")
        return {
            "folder": str(folder),
            "images": str(images),
            "pictures": config.pictures,
            "identities": config.identities,
        }

    def goes_on(self) -> bool:
        """It does."""
        return True
