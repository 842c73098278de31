"""A person out of a prior: an adapter trained so that the anchors' renderings become the photos.

    loss = MSE(image, photo) + MSE(raw, small photo) + perceptual distance of both     (EG3D spec 5.6)
           + a little absolute error of both, and of their differences between neighbours

The latents stay, unless they are refined together with the adapter; the prior never changes. With a budget
the adapter is trained at a generous rank first, then cut down to what matters (`my3dgen.rank_allocation`).
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from my3dgen.anchors import Anchors
from my3dgen.checkpoint import fingerprint, load_checkpoint
from my3dgen.comparison import rows
from my3dgen.errors import PriorMismatchError, UserError
from my3dgen.faces.album import Album
from my3dgen.lora import Adapter, new_adapter, stack, unstack
from my3dgen.perceptual import load_perceptual
from my3dgen.person import Person, new_person
from my3dgen.preserve import preservation
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior, load_prior
from my3dgen.progress import track
from my3dgen.rank_allocation import components, importances, in_singular_basis, reduced, within_budget
from my3dgen.ranks import EXTRAS, PLACED
from my3dgen.rates import FACTORS, adapter_rates
from my3dgen.regularize import identity_and_symmetry
from my3dgen.targets import Targets, joined, targets_of
from my3dgen.tune import Extra, TuneConfig, keep, loss_of_step, tune

Quality = Literal["draft", "standard", "max"]
LOOKS = 32  # steps that weigh an adapter's components, at least
FULL_RATE = 1e-4  # the adapter's rate makes all weights diverge
TUNED_IN_FULL = ("backbone.synthesis.", "superresolution.", "decoder.")


@dataclass(frozen=True, kw_only=True)
class PersonalizeConfig(TuneConfig):
    """How a person is made from anchors."""

    rank: int = 1
    """Rank of the adapter per kernel row, where `ranks` says nothing; with a budget, before it is cut."""
    ranks: dict[str, int] = field(default_factory=dict)
    """Ranks of groups of layers that differ (`my3dgen.ranks`); 0 leaves a group as it is."""
    extras: tuple[str, ...] = EXTRAS
    """What trains beside the low-rank factors."""
    alpha: float = 1.0
    """The low-rank change of a layer is scaled by alpha / its rank."""
    budget: int | None = None
    """Numbers in the adapter, extras included, to which it is cut by importance; None leaves all."""
    explore: float = 0.3
    """Share of the steps before it is cut."""
    merged: int = 4
    """So many steps become one that sees the photos of all, with a rate grown by the root of it: as good, and
    faster. Not with terms that come every few steps, with a budget or moving latents."""
    refine: float = 0.0
    """Learning rate of the latents, in their own units; 0 leaves them as inverted."""
    refine_share: float = 1.0
    """Last share of the steps in which latents are refined."""
    preserve: float = 0.0
    """Weight of the change of other faces of the prior (`my3dgen.preserve`)."""
    preserve_every: int = 4
    """Steps between two such faces."""
    identity: float = 0.0
    """Weight of 1 - cosine of face embeddings of rendering and photo."""
    symmetry: float = 0.0
    """Weight of 1 - cosine of face embeddings of a rendering and its mirrored view."""


QUALITIES: dict[Quality, PersonalizeConfig] = {
    "draft": PersonalizeConfig(ranks=PLACED, steps=120),
    "standard": PersonalizeConfig(ranks=PLACED),
    # by the root rule of `merged`, the rate of the benchmark of methods, whose steps see 16 photos
    "max": PersonalizeConfig(ranks=PLACED, steps=6000, window=None, batch=2, rate=1.4e-3, merged=1),
}


def with_merged_steps(config: PersonalizeConfig) -> PersonalizeConfig:
    """The steps that are taken, in which `merged` ones are one; `merged` is 1 in what is returned."""
    count = config.merged
    if count == 1 or config.budget is not None or config.refine or compares(config):
        return replace(config, merged=1)
    return replace(
        config,
        steps=-(-config.steps // count),
        warm=-(-config.warm // count),
        batch=config.batch * count,
        rate=config.rate * count**0.5,
        merged=1,
    )


def compares(config: PersonalizeConfig) -> bool:
    """Whether there are terms that compare faces."""
    return bool(config.identity or config.symmetry or config.preserve)


@dataclass(frozen=True, eq=False)
class FullyTuned:
    """The baseline of full fine-tuning: a generator of its own instead of an adapter."""

    generator: Generator
    anchors: Anchors
    made: dict[str, Any]


def personalize(
    prior: Prior,
    album: Album,
    anchors: Anchors,
    config: PersonalizeConfig = QUALITIES["standard"],
    *,
    unfinished: Path | None = None,
) -> Person:
    """Train an adapter on `prior` so that the anchors reproduce the album's photos.

    `anchors` come from `invert` on the same album. `unfinished` is a file for work under way, continued
    to the same result and left for the caller to delete. Raises UserError for an album without photos
    or when training diverges, PriorMismatchError for anchors that do not fit.
    """
    started = time.monotonic()
    config = with_merged_steps(config)
    work = _Work("lora", prior, [album], [anchors], config, unfinished)
    adapter, first = work.new_adapter(), 0
    if config.budget is not None:
        adapter, first = _within_budget(work, adapter, config.budget), work.explored
    losses = work.train(prior.generator, adapter, adapter.tensors, first, config.steps)
    made = {"method": "lora", **work.made(losses, started)}
    if config.budget is not None:
        made["components"] = components(adapter)
    return new_person(prior, adapter, work.refined()[0], made)


def personalize_many(
    prior: Prior,
    albums: Sequence[Album],
    anchors: Sequence[Anchors],
    config: PersonalizeConfig = QUALITIES["standard"],
) -> list[Person]:
    """`personalize` for several people at once: every step sees photos of all. Worth it on a GPU.

    Everybody becomes what they become alone, up to rounding. With a budget or with terms that compare
    faces, people are made one after the other. Errors as `personalize`.
    """
    if config.budget is not None or compares(config):
        return [personalize(prior, *each, config) for each in zip(albums, anchors, strict=True)]
    if not albums:
        return []
    started = time.monotonic()
    config = with_merged_steps(config)
    work = _Work("lora", prior, albums, anchors, config, None)
    adapter = stack([work.new_adapter() for _ in albums]).detached().requires_grad_()
    losses = work.train(prior.generator, adapter, adapter.tensors, 0, config.steps)
    return [
        new_person(prior, own, refined, {"method": "lora", **work.made(losses, started, person)})
        for person, (own, refined) in enumerate(zip(unstack(adapter), work.refined(), strict=True))
    ]


def finetune(
    prior: Prior,
    album: Album,
    anchors: Anchors,
    config: PersonalizeConfig | None = None,
    *,
    unfinished: Path | None = None,
) -> FullyTuned:
    """The baseline: train all weights but the mapping's, in a copy of the generator.

    Arguments and errors as `personalize`; the default is its standard with a rate of its own.
    """
    started = time.monotonic()
    config = replace(config or replace(QUALITIES["standard"], rate=FULL_RATE), merged=1, ranks={})
    work = _Work("full", prior, [album], [anchors], config, unfinished)
    generator = copy.deepcopy(prior.generator)
    leaves = {n: p.requires_grad_() for n, p in generator.named_parameters() if n.startswith(TUNED_IN_FULL)}
    losses = work.train(generator, None, leaves, 0, config.steps)
    generator.requires_grad_(False).zero_grad()
    return FullyTuned(generator, work.refined()[0], {"method": "full", **work.made(losses, started)})


class _Work:
    """The making of one person, or of several together: what is compared, latents and their moves, what an
    unfinished file holds."""

    def __init__(
        self,
        method: Literal["lora", "full"],
        prior: Prior,
        albums: Sequence[Album],
        anchors: Sequence[Anchors],
        config: PersonalizeConfig,
        unfinished: Path | None,
    ) -> None:
        self.prior, self.anchors, self.config, self.unfinished = prior, anchors, config, unfinished
        device = prior.generator.w_avg.device
        targets = [targets_of(album, prior.config, device) for album in albums]
        for photos, own in zip(targets, anchors, strict=True):
            check_anchors(prior, photos, own)
        self.counts = [len(photos) for photos in targets]
        self.ws = torch.cat([own.ws for own in anchors]).to(device)
        cameras = torch.cat([own.cameras for own in anchors]).to(device)
        self.targets = replace(joined(targets), cameras=cameras, cache={})
        self.perceptual = load_perceptual("squeeze-feat", device) if config.perceptual else None
        self.moves: dict[str, Tensor] = {}
        if config.refine:
            for own in anchors:
                layers = 1 if (own.ws == own.ws[:, :1]).all() else own.ws.shape[1]  # W stays W
                # one leaf a photo: an optimiser leaves alone what had no gradient in a step
                for _ in range(len(own)):
                    move = torch.zeros(1, layers, own.ws.shape[2], device=device, requires_grad=True)
                    self.moves[f"latent.{len(self.moves)}"] = move
        self.belongs = fingerprint(
            method,
            prior.sha256,
            asdict(config),
            self.targets.images,
            self.targets.masks,
            cameras,
            self.ws,
            FACTORS if method == "lora" else None,
        )
        self.kept = load_checkpoint(unfinished, self.belongs) if unfinished else None

    def new_adapter(self) -> Adapter:
        """The adapter that everybody starts with."""
        config = self.config
        return new_adapter(
            self.prior.generator,
            config.rank,
            config.alpha,
            torch.Generator().manual_seed(config.seed),
            ranks=config.ranks,
            extras=config.extras,
        )

    @property
    def explored(self) -> int:
        """Steps before an adapter is cut to its budget."""
        return max(1, round(self.config.explore * self.config.steps))

    @property
    def done(self) -> int:
        """Steps that the unfinished file has behind it."""
        return self.kept.state["steps"] if self.kept else 0

    def latents(self, numbers: Tensor) -> Tensor:
        """Latents of numbered photos."""
        if not self.moves:
            return rows(self.ws, numbers)
        return torch.cat([self.ws[i : i + 1] + self.moves[f"latent.{i}"] for i in numbers.tolist()])

    def refined(self) -> list[Anchors]:
        """Each person's anchors where their latents are now."""
        with torch.no_grad():
            final = self.latents(torch.arange(len(self.ws))).cpu().split(self.counts)
        return [Anchors(ws, own.cameras, own.names) for ws, own in zip(final, self.anchors, strict=True)]

    def train(
        self,
        generator: Generator,
        adapter: Adapter | None,
        leaves: Mapping[str, Tensor],
        first: int,
        steps: int,
        fall: float | None = None,
    ) -> list[list[float]]:
        """Steps `first` to `steps`, or what the unfinished file leaves of them."""
        config = self.config
        face = identity_and_symmetry(generator, adapter, self.targets, self.latents, config)
        others = preservation(self.prior.generator, generator, adapter, config)
        late = round(config.steps * (1 - config.refine_share))
        own = {} if adapter is None else adapter_rates(leaves)
        return tune(
            generator,
            adapter,
            {**leaves, **self.moves},
            self.targets,
            self.latents,
            replace(config, steps=steps, fall=config.fall if fall is None else fall),
            self.perceptual,
            belongs=self.belongs,
            people=self.counts,
            unfinished=self.unfinished,
            kept=self.kept if first <= self.done else None,
            first=first,
            extra=together(face, others),
            rates={**own, **{name: config.refine / config.rate for name in self.moves}},
            starts=dict.fromkeys(self.moves, late),
        )

    def made(self, losses: list[list[float]], started: float, person: int = 0) -> dict[str, Any]:
        """The card's figures."""
        settings = asdict(self.config) | {"extras": list(self.config.extras)}
        made = {"photos": self.counts[person], **settings}
        if losses:
            last = [loss[person] for loss in losses[-self.counts[person] :]]
            made["last_loss"] = round(sum(last) / len(last), 5)
        return made | {"seconds": round(time.monotonic() - started, 1)}


def _within_budget(work: _Work, adapter: Adapter, budget: int) -> Adapter:
    """The adapter trained for a while and cut to `budget` numbers, or what the unfinished file has of it."""
    first, config, generator = work.explored, work.config, work.prior.generator
    if work.kept is not None and work.done >= first:
        found = work.kept.tensors
        # in the adapter's order, which a file does not keep but the optimiser's state refers to
        held = {n: found[f"leaf.{n}"].to(work.ws.device) for n in adapter.tensors if f"leaf.{n}" in found}
        return Adapter(config.alpha, held).detached().requires_grad_()
    work.train(generator, adapter, adapter.tensors, 0, first, fall=0.5 / first)  # the rate does not fall yet
    turned = in_singular_basis(adapter).requires_grad_()

    def loss(step: int) -> Tensor:
        return loss_of_step(generator, turned, work.targets, work.latents, config, work.perceptual, step)

    looks = max(LOOKS, -(-len(work.targets) // config.batch))
    scores = importances(turned, loss, track(range(first, first + looks), "weighing components"))
    cut = reduced(turned, within_budget(turned, scores, budget))
    work.kept = None
    if work.unfinished:
        keep(work.unfinished, work.belongs, {**cut.tensors, **work.moves}, first)
    return cut


def together(*terms: Extra | None) -> Extra | None:
    """The sum of the terms there are."""
    found = [term for term in terms if term is not None]
    if not found:
        return None
    return lambda step, numbers: torch.stack([term(step, numbers) for term in found]).sum()


def check_anchors(prior: Prior, targets: Targets, anchors: Anchors) -> None:
    """Raise unless there is one anchor per photo (UserError), in the prior's W (PriorMismatchError)."""
    expected = (prior.config.num_ws, prior.config.w_dim)
    if tuple(anchors.ws.shape[1:]) != expected:
        raise PriorMismatchError(
            f"the anchors are {tuple(anchors.ws.shape[1:])}, latents of prior '{prior.name}' {expected}; "
            "invert the album with this prior"
        )
    if len(anchors) != len(targets):
        raise UserError(f"{len(anchors)} anchors for {len(targets)} photos; invert this album again")


def person_of(folder: Path, tuned: FullyTuned) -> Person:
    """A fully tuned generator as a person: an adapter without effect on the prior written to `folder`."""
    prior = load_prior(folder)
    return new_person(prior, new_adapter(prior.generator, 1, 1.0), tuned.anchors, tuned.made)
