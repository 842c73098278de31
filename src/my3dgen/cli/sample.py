"""`my3dgen sample`: new appearances from a person's alpha-space."""

import math
from dataclasses import dataclass
from typing import Literal

from my3dgen.cli.subject import SubjectVerb


@dataclass(frozen=True, kw_only=True)
class Sample(SubjectVerb):
    """Draw random mixtures of a person's photos: new expressions and light, the same person.

    my3dgen sample me.safetensors -o new.png --count 12
    """

    count: int = 12
    """How many."""
    beta: float = 0.0
    """How far outside the photos' hull: 0 inside, 0.1 to 0.3 livelier and less alike."""
    weights: Literal["uniform", "dirichlet"] = "uniform"
    """Rule for the weights of three random anchors; dirichlet goes nearer to single photos."""
    yaw_range: float = 0.0
    """The camera's yaw is random within this many degrees to either side."""

    def run(self) -> dict:
        """Write the sheet; returns each sample's weights."""
        from my3dgen.apps.sample import sample
        from my3dgen.apps.sheet import check_picture, save_image, sheet
        from my3dgen.progress import track

        check_picture(self.out)
        prior, person = self.load()
        pictures = sample(
            prior,
            person,
            count=self.count,
            beta=self.beta,
            weights=self.weights,
            yaw_range=math.radians(self.yaw_range),
            size=self.size,
            resolution=self.resolution,
            seed=self.seed,
        )
        samples = list(track(pictures, "samples", total=self.count))
        captions = [
            "  ".join(f"{k}:{weight:.2f}" for k, weight in one.alpha.items())
            if person is not None
            else f"seed {self.seed + index}"
            for index, one in enumerate(samples)
        ]
        images = [one.image for one in samples]
        save_image(sheet(images, captions, cell=images[0].width), self.out)
        if not self.json:
            print(f"{len(samples)} samples -> {self.out}")
        return {
            "sheet": str(self.out),
            "count": len(samples),
            "beta": self.beta,
            "alphas": [{str(k): round(w, 4) for k, w in one.alpha.items()} for one in samples],
        }
