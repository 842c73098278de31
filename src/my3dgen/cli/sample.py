"""`my3dgen sample`: new appearances from a person's alpha-space."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from my3dgen.cli.subject import SubjectVerb


@dataclass(frozen=True, kw_only=True)
class Sample(SubjectVerb):
    """Draw random mixtures of a person's photos: new expressions and light, the same person.

    my3dgen sample me.safetensors -o new.png --count 12
    """

    count: int = 12
    """How many."""
    support: int | None = 3
    """How many random anchors each mixes: 3 as in MyStyle; None for all, near the mean."""
    beta: float = 0.0
    """How far outside the photos' hull: 0 inside, 0.1 to 0.3 livelier and less alike."""
    weights: Literal["uniform", "dirichlet"] = "uniform"
    """Rule for the anchors' weights; dirichlet goes nearer to single photos."""
    yaw_range: float = 0.0
    """The camera's yaw is random within this many degrees to either side."""
    stills: Path | None = None
    """Also write every sample, as PNG files in this new folder."""

    def run(self) -> dict:
        """Write the sheet, and the stills if asked for; returns each sample's weights."""
        from my3dgen.apps.sample import sample
        from my3dgen.apps.sheet import check_picture, save_image, sheet
        from my3dgen.apps.stills import check_stills, save_stills
        from my3dgen.progress import track

        check_picture(self.out)
        if self.stills is not None:
            check_stills(self.stills)
        prior, person = self.load()
        pictures = sample(
            prior,
            person,
            count=self.count,
            support=self.support,
            beta=self.beta,
            weights=self.weights,
            yaw_range=math.radians(self.yaw_range),
            size=self.size,
            resolution=self.resolution,
            seed=self.seed,
        )
        samples = list(track(pictures, "samples", total=self.count))
        captions = [
            "  ".join(f"{k}:{weight:.2f}" for k, weight in heaviest(one.alpha))
            if person is not None
            else f"seed {self.seed + index}"
            for index, one in enumerate(samples)
        ]
        images = [one.image for one in samples]
        save_image(sheet(images, captions, cell=images[0].width), self.out)
        result = {}
        if self.stills is not None:
            for _ in save_stills(images, self.stills, "sample"):
                pass
            result["stills"] = str(self.stills)
        if not self.json:
            print(f"{len(samples)} samples -> {self.out}")
        return {
            "sheet": str(self.out),
            "count": len(samples),
            "beta": self.beta,
            "support": self.support,
            "alphas": [{str(k): round(w, 4) for k, w in one.alpha.items()} for one in samples],
        } | result


def heaviest(alpha: dict[int, float]) -> list[tuple[int, float]]:
    """The three anchors with the largest weights, in their own order."""
    return sorted(sorted(alpha.items(), key=lambda one: -abs(one[1]))[:3])
