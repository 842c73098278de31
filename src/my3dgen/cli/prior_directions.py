"""`my3dgen prior directions`: find a prior's edit directions."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from my3dgen.cli.verb import Verb

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from my3dgen.prior.directions import DirectionFacts, Scorer
    from my3dgen.prior.store import Prior

    Found = tuple[dict[str, Float[Tensor, " w_dim"]], dict[str, DirectionFacts]]


@dataclass(frozen=True, kw_only=True)
class PriorDirections(Verb):
    """Find what changes a smile, a blink... in a prior, by scoring faces drawn from it.

    my3dgen prior directions ffhq --samples 4000 --sheet directions.png

    With --heads the directions come from synthetic heads whose factors are known, each rendered with one
    factor lowered and raised; that takes a prior trained on them, such as mini, and its encoder.
    """

    prior: Positional[str] = "mini"
    """Name or folder of the prior."""
    names: tuple[str, ...] = ()
    """Attributes to find directions for; smile, jaw_open, blink, brows_up, pucker and brightness by default,
    with --heads all that a factor is behind."""
    against: tuple[str, ...] = ()
    """Attributes every other direction should leave as they are."""
    samples: int = 4000
    """Faces to draw and score."""
    heads: int = 0
    """Synthetic heads rendered for each direction, at least 8; 0 scores samples instead."""
    seed: int = 0
    """Which faces."""
    out: Path | None = None
    """File to write; directions.safetensors in the prior's folder by default. The package's own prior is
    left as it is and needs one."""
    sheet: Path | None = None
    """Also write a sheet that shows every direction on three faces."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    def run(self) -> dict:
        """Find, measure and write the directions."""
        from dataclasses import replace

        from my3dgen.apps.attributes import attributes_from
        from my3dgen.apps.edit import edit
        from my3dgen.apps.sheet import save_image, sheet
        from my3dgen.apps.subject import subject_of
        from my3dgen.cli.subject import load_subject
        from my3dgen.errors import UserError
        from my3dgen.prior.directions import save_directions
        from my3dgen.prior.store import DIRECTIONS, EMBEDDED, find_prior, write_sums

        if not 100 <= self.samples <= 1_000_000:
            raise UserError(f"--samples {self.samples} is out of range; choose 100 to 1000000")
        if self.heads and not 8 <= self.heads <= 100_000:
            raise UserError(f"--heads {self.heads} is out of range; choose 8 to 100000, or 0")
        folder = find_prior(self.prior)
        if self.out is None and folder.resolve().parent == EMBEDDED:
            raise UserError(
                f"prior '{self.prior}' is the package's own; give --out FILE, or use a copy of {folder}"
            )
        prior, _ = load_subject(None, self.prior, self.device)
        score = attributes_from(subject_of(prior).camera())
        directions, facts = (self._from_heads if self.heads else self._from_samples)(prior, score)
        own = folder / DIRECTIONS
        out = save_directions(self.out or own, directions, facts)
        if own.exists() and own.samefile(out):
            write_sums(folder, DIRECTIONS)
        result: dict = {"directions": str(out), "facts": {name: asdict(f) for name, f in facts.items()}}
        if self.sheet is not None:
            device = prior.generator.w_avg.device
            on = replace(prior, directions={name: d.to(device) for name, d in directions.items()})
            rows = [(name, seed) for name in directions for seed in (0, 1, 2)]
            shown = [one for name, seed in rows for one in edit(on, direction=name, seed=seed)]
            result["sheet"] = str(
                save_image(
                    sheet(
                        [one.image for one in shown],
                        [f"{one.strength:+g}" for one in shown],
                        columns=5,
                        row_titles=[name for name, _ in rows],
                        cell=192,
                    ),
                    self.sheet,
                )
            )
        if not self.json:
            print(f"{len(directions)} directions -> {out}")
            for name, fact in facts.items():
                print(f"  {name}: separation {fact.separation:.3f}, strength 1 adds {fact.scale:.3f}")
        return result

    def _from_samples(self, prior: "Prior", score: "Scorer") -> "Found":
        from my3dgen.prior.directions import find_directions

        names = self.names or ("smile", "jaw_open", "blink", "brows_up", "pucker", "brightness")
        against = {name: [other for other in self.against if other != name] for name in names}
        return find_directions(
            prior.generator, score, names, samples=self.samples, seed=self.seed, against=against
        )

    def _from_heads(self, prior: "Prior", score: "Scorer") -> "Found":
        from my3dgen.errors import UserError
        from my3dgen.pretrain.factor_directions import directions_from_pairs, encode_pairs, known_names
        from my3dgen.prior.directions import draw_latents, frontal_measure

        if self.against:
            raise UserError("--against does not go with --heads, where everything else is equal already")
        names, encoder = known_names(self.names), prior.encoder
        if encoder is None:
            raise UserError(f"prior '{self.prior}' has no encoder; --heads takes one")
        pairs = {name: encode_pairs(encoder, name, self.heads) for name in names}
        samples = draw_latents(prior.generator, self.samples, seed=self.seed)
        return directions_from_pairs(pairs, samples, frontal_measure(prior.generator, score))
