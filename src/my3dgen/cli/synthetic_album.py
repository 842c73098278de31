"""`my3dgen synthetic album`: photos of one synthetic person, with the truth beside them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from my3dgen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class SyntheticAlbum(Verb):
    """Photos of a person who does not exist, with exact cameras: try everything without anyone's photos."""

    out: Positional[Path]
    """New folder for photos/, truth.json and split.json."""
    seed: int = 1_000_000_000
    """The person. 0 to 999999999 are the people priors are trained on; from 1000000000 on, strangers."""
    photos: int = 60
    """How many; every sixth is held out in split.json."""
    size: int = 384
    """Pixels, a multiple of 64."""
    changes: float = 0.0
    """How much hair, clothes, skin and weight change between photos that are not held out: 0 for those of
    one day, 1 for those of years, 4 at most."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to render."""

    def run(self) -> dict:
        """Plan, render and write the album."""
        from my3dgen.cli.device import chosen_device
        from my3dgen.progress import say
        from my3dgen.synthetic.album import plan_album, write_album

        truth = plan_album(self.seed, self.photos, self.size, self.changes)
        folder = write_album(self.out, truth, device=chosen_device(self.device))
        held_out = sum(photo.held_out for photo in truth.photos)
        say(f"{folder}: {len(truth.photos)} photos, {held_out} of them held out in split.json")
        return {"folder": str(folder), "photos": len(truth.photos), "held_out": held_out, "seed": self.seed}
