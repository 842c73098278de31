"""`my3dgen personalize`: an album to a small person file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from my3dgen.cli.verb import Verb

if TYPE_CHECKING:
    from PIL import Image

    from my3dgen.anchors import Anchors
    from my3dgen.lora import Adapter
    from my3dgen.prior.generator import Generator
    from my3dgen.targets import Targets

SHOWN = 8  # photos on the sheet
BUDGET_RANK = 4  # before an adapter is cut to its budget


@dataclass(frozen=True, kw_only=True)
class Personalize(Verb):
    """Make a person from an album, or from a folder of photos, which becomes an album beside the result.

    Stopped with Ctrl-C, the same command goes on where it was and comes to the same result.

    my3dgen personalize album -o me.safetensors
    """

    album: Positional[Path]
    """Album made by `my3dgen faces`, or a folder of photos of one person (about 50)."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """Person file to write; a sheet of photos and renderings goes beside it."""
    prior: str = "mini"
    """Name or folder of the prior."""
    quality: Literal["draft", "standard", "max"] = "standard"
    """How long to work: draft takes a third of standard; max is for a GPU, or for a night."""
    space: Literal["w", "w+"] = "w"
    """Latents of the photos: one vector for all layers, or one a layer, nearer to the photo."""
    rank: int | None = None
    """Rank of the adapter per kernel row, the same in all layers; the file grows with it. Without --rank,
    --ranks and --budget layers of high resolution have more than 1 and the lowest none, in about as many
    numbers as rank 1."""
    ranks: str = ""
    """Other ranks by group of layers, as backbone=1,superresolution=2,affine=1,torgb=0; b64=2 is the
    backbone's convolutions of one resolution. All others have --rank, or 1, or with a budget 4."""
    alpha: float = 1.0
    """The adapter's change of a layer is scaled by alpha / its rank; learning rates are made for 1."""
    extras: str = "all"
    """What trains beside the low-rank factors: all, none, or some of const,bias,noise."""
    budget: int | None = None
    """Numbers in the adapter: after a while only the components that matter most are kept and trained."""
    explore: float = 0.3
    """Share of the steps before a budget cuts the adapter."""
    rate: float | None = None
    """Learning rate, if not the usual one; an adapter's convolutions take three times it, the rest less."""
    identity: float = 0.0
    """Weight of a term that compares faces; figures by the same network then mean nothing."""
    symmetry: float = 0.0
    """Weight of a term that compares a face with its mirror image, by that network, too."""
    refine: float = 0.0
    """Learning rate of the photos' latents, trained along with the adapter; 0.001 to 0.01 are usual."""
    refine_share: float = 1.0
    """Last share of the steps in which the latents are trained, too."""
    preserve: float = 0.0
    """Weight of a term that keeps other faces of the prior as they are."""
    preserve_every: int = 4
    """Steps between two such faces."""
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp16"
    """How the person file stores numbers; int8 is the smallest."""
    full: bool = False
    """Tune all weights, as a baseline: also writes a prior folder, OUT with the suffix .prior."""
    seed: int = 0
    """Of everything random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to work."""

    def run(self) -> dict:
        """Invert, train, write the person and the sheet; returns figures."""
        from my3dgen.apps.sheet import save_image
        from my3dgen.cli.photos import album_at
        from my3dgen.cli.subject import load_subject
        from my3dgen.errors import UserError
        from my3dgen.invert import QUALITIES as INVERSIONS
        from my3dgen.invert import invert
        from my3dgen.output import check_output
        from my3dgen.person import Person
        from my3dgen.personalize import FULL_RATE, QUALITIES, finetune, person_of, personalize
        from my3dgen.prior.store import write_prior
        from my3dgen.targets import targets_of

        check_output(self.out, (".safetensors",), "a person file ends in .safetensors")
        asked = self.rank or self.ranks or self.alpha != 1 or self.extras != "all" or self.budget is not None
        if self.full and asked:
            raise UserError("--full has no adapter; leave out --rank, --ranks, --alpha, --extras, --budget")
        if not 0 < self.alpha <= 100:
            raise UserError(f"--alpha {self.alpha:g} is outside 0 to 100; 1 is usual")
        if self.rate is not None and not 0 < self.rate <= 1:
            raise UserError(f"--rate {self.rate:g} is outside 0 to 1; 0.0005 to 0.003 are usual")
        for name in ("identity", "symmetry", "preserve"):
            if not 0 <= (weight := getattr(self, name)) <= 100:
                raise UserError(f"--{name} {weight:g} is outside 0 to 100")
        for name in ("refine", "refine_share"):
            if not 0 <= (number := getattr(self, name)) <= 1:
                raise UserError(f"--{name.replace('_', '-')} {number:g} is outside 0 to 1")
        if not 0 < self.explore < 1:
            raise UserError(f"--explore {self.explore:g} is not between 0 and 1")
        if self.preserve_every < 1:
            raise UserError(f"--preserve-every {self.preserve_every} is below 1")
        folder = self.out.with_suffix(".prior")
        if self.full and folder.exists():
            raise UserError(f"{folder}: is already there; choose another -o or delete it")
        prior, _ = load_subject(None, self.prior, self.device, self.seed)
        adapts = self._adapter_options(prior.generator)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        album = album_at(self.album, prior, self.out.with_suffix(".album"))
        config = replace(
            QUALITIES[self.quality],
            **adapts,
            rate=self.rate or (FULL_RATE if self.full else QUALITIES[self.quality].rate),
            identity=self.identity,
            symmetry=self.symmetry,
            preserve=self.preserve,
            preserve_every=self.preserve_every,
            refine=self.refine,
            refine_share=self.refine_share,
            seed=self.seed,
        )
        inverting, training = (
            self.out.with_name(f"{self.out.name}.{work}") for work in ("inverting", "training")
        )
        anchors = invert(
            prior,
            album,
            replace(INVERSIONS[self.quality], space=self.space, seed=self.seed),
            unfinished=inverting,
        )
        if self.full:
            tuned = finetune(prior, album, anchors, config, unfinished=training)
            state = {name: t.cpu() for name, t in tuned.generator.state_dict().items()}
            card = f"# {prior.name}, all weights tuned on one person\n\nA baseline for comparison.\n"
            write_prior(folder, prior.config, state, card, half=True)
            person = person_of(folder, tuned)
            generator = tuned.generator
        else:
            person = personalize(prior, album, anchors, config, unfinished=training)
            generator = prior.generator
        person = replace(person, card=replace(person.card, made=person.card.made | {"space": self.space}))
        person = Person.load(person.save(self.out, precision=self.precision))  # what others will see
        inverting.unlink(missing_ok=True)
        training.unlink(missing_ok=True)

        targets = targets_of(album, prior.config, prior.generator.w_avg.device)
        adapter = None if self.full else person.adapter.to(prior.generator.w_avg.device)
        shown = list(range(0, len(targets), -(-len(targets) // SHOWN)))
        picture, figures = comparison(
            targets,
            shown,
            [(prior.generator, None, anchors), (generator, adapter, person.anchors)],
        )
        sheet = save_image(picture, self.out.with_suffix(".sheet.png"))
        facts = person.facts()
        if not self.json:
            print(
                f"{len(targets)} photos -> {self.out} ({self.out.stat().st_size / 1024:.0f} KiB); "
                f"{figures[0]:.1f} dB by the prior alone, {figures[1]:.1f} dB personalized"
            )
            print(f"look at {sheet}")
        return {
            "person": str(self.out),
            "bytes": self.out.stat().st_size,
            "sheet": str(sheet),
            "photos": len(targets),
            "rank": facts["rank"],
            "trainable_parameters": facts["trainable_parameters"],
            "precision": self.precision,
            "shown_photos": len(shown),
            "psnr_prior": round(figures[0], 2),
            "psnr_person": round(figures[1], 2),
            "made": facts["made"],
        } | ({"full_prior": str(folder)} if self.full else {})

    def _adapter_options(self, generator: Generator) -> dict[str, Any]:
        """Fields of the configuration that say what the adapter is. Raises UserError, before any work."""
        from my3dgen.errors import UserError
        from my3dgen.lora import new_adapter
        from my3dgen.personalize import QUALITIES
        from my3dgen.rank_allocation import room_for_components
        from my3dgen.ranks import MAX_RANK, parse_extras, parse_ranks

        rank = self.rank if self.rank is not None else 1 if self.budget is None else BUDGET_RANK
        if not 1 <= rank <= MAX_RANK:
            raise UserError(f"--rank {rank} is outside 1 to {MAX_RANK}")
        ranks = parse_ranks(self.ranks, generator.config.block_resolutions)
        if self.rank is None and self.budget is None and not self.ranks:
            ranks = QUALITIES[self.quality].ranks
        extras = parse_extras(self.extras)
        try:
            adapter = new_adapter(generator, rank, 1.0, ranks=ranks, extras=extras)
        except ValueError as error:
            raise UserError(f"--ranks and --extras: {error}; choose more") from None
        if self.budget is not None:
            room_for_components(adapter, self.budget)
        return {
            "rank": rank,
            "ranks": ranks,
            "alpha": self.alpha,
            "extras": extras,
            "budget": self.budget,
            "explore": self.explore,
        }

    def goes_on(self) -> bool:
        """It does."""
        return True


def comparison(
    targets: Targets,
    shown: list[int],
    methods: list[tuple[Generator, Adapter | None, Anchors]],
) -> tuple[Image.Image, list[float]]:
    """(sheet, figures): photos above their renderings by each method, PSNR over the head in the captions.

    The figures are the methods' means over the photos shown.
    """
    import torch

    from my3dgen.apps.sheet import sheet, to_image
    from my3dgen.evaluate.metrics import psnr
    from my3dgen.evaluate.protocol import reproduce

    photos, masks = targets.images[shown], targets.masks[shown]
    pictures = [to_image(photo) for photo in photos]
    captions = [Path(targets.names[i]).stem for i in shown]
    figures = []
    for generator, adapter, anchors in methods:
        with torch.no_grad():
            made = reproduce(
                generator, adapter, anchors.ws[shown].to(photos), anchors.cameras[shown].to(photos)
            )
        scores = psnr(made, photos, masks)
        figures.append(float(scores.mean()))
        pictures += [to_image(one) for one in made]
        captions += [f"{score:.1f} dB" for score in scores.tolist()]
    page = sheet(
        pictures,
        captions,
        columns=len(shown),
        row_titles=["photos", "prior", "personalized"],
        cell=192,
    )
    return page, figures
