"""The ways to reproduce a person that are compared: the prior alone, LoRA, and all weights tuned.

Each inverts a photo in its own latent space, all with the same number of steps a photo. The prior alone
searches W or W+. A personalised generator searches the alpha-space of its anchors, as the paper does:
elsewhere it has learned nothing about the person. With pivotal tuning (PTI) all weights, of the prior or
those tuned for the person, or the person's adapter then bend around each photo. The prior starts where
`invert` starts it: from its encoder, or from one latent fitted to all photos given. That comes on top of the
steps and makes the baseline stronger.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from my3dgen.anchors import Anchors
from my3dgen.faces.album import Album
from my3dgen.invert import FEW, InvertConfig, invert
from my3dgen.lora import Adapter, new_adapter
from my3dgen.person import Person, new_person
from my3dgen.pivot import tune_all_on_photo, tune_on_photos
from my3dgen.place import PLACE_FACTOR, place
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior
from my3dgen.tune import TuneConfig

Model = tuple[Generator, Adapter | None]
"""What draws."""


@dataclass(frozen=True)
class Found:
    """Photos inverted by a method, in their order."""

    ws: Float[Tensor, "batch num_ws w_dim"]
    cameras: Float[Tensor, "batch 25"]
    own: tuple["Model", ...] | None = None
    """A model for each photo, where a method makes them; they take the place of the method's."""


@dataclass(frozen=True)
class Method:
    """A way to reproduce a person."""

    name: str
    """Such as `prior`, `lora`, `full` or `full-pti`."""
    latent: str
    """Where photos are inverted to, in words."""
    generator: Generator
    adapter: Adapter | None
    invert: Callable[[Album, bool], Found]
    """Latents and cameras of photos; the flag says whether cameras may be corrected."""

    def models(self, found: Found) -> tuple[Model, ...]:
        """What draws each of the photos found."""
        return found.own or ((self.generator, self.adapter),) * len(found.ws)


def prior_alone(prior: Prior, config: InvertConfig, name: str = "prior") -> Method:
    """The frozen prior, inverting in the space of `config`."""

    def find(album: Album, correct_cameras: bool) -> Found:
        more = times(config, factor_for(album))
        # alone_factor: `invert` shall not give a lonely photo more steps on its own account
        found = invert(prior, album, replace(more, cameras=correct_cameras, alone_factor=1))
        return Found(found.ws, found.cameras)

    return Method(name, config.space.upper(), prior.generator, None, find)


def pivotal(prior: Prior, config: InvertConfig, tuning: TuneConfig, name: str = "pti") -> Method:
    """Pivotal tuning: the frozen prior's inversion, then all weights tuned on each photo by itself."""
    return bent_in_full(prior, prior_alone(prior, config, name), tuning)


def bent_in_full(own: Prior, method: Method, tuning: TuneConfig) -> Method:
    """A method that draws with `own` generator; after it inverted, all weights are tuned on each photo."""

    def find(album: Album, correct_cameras: bool) -> Found:
        found = method.invert(album, correct_cameras)
        tuned = (tune_all_on_photo(own, album, found, i, tuning) for i in range(len(album)))
        return replace(found, own=tuple((generator, None) for generator in tuned))

    return replace(method, latent=f"{method.latent}, then all weights", invert=find)


def personalised(
    prior: Prior,
    person: Person,
    config: InvertConfig,
    name: str = "lora",
    pivoting: TuneConfig | None = None,
) -> Method:
    """A person's generator, inverting in the alpha-space of the person's anchors; with `pivoting` the adapter
    then bends around each photo."""

    def find(album: Album, correct_cameras: bool) -> Found:
        # `place` multiplies by PLACE_FACTOR itself
        more = times(config, factor_for(album) // PLACE_FACTOR)
        found = place(prior, person, album, replace(more, cameras=correct_cameras))
        if pivoting is None:
            return Found(found.ws, found.cameras)
        tuned = tune_on_photos(prior, adapter, album, found, pivoting)
        return Found(found.ws, found.cameras, tuple((prior.generator, own.to(device)) for own in tuned))

    device = prior.generator.w_avg.device
    adapter = person.adapter.to(device)
    space = "alpha-space" if pivoting is None else "alpha-space, then the adapter"
    return Method(name, space, prior.generator, adapter, find)


def factor_for(album: Album) -> int:
    """How many times the steps of an anchor a photo gets: more when it stands alone."""
    return PLACE_FACTOR * (1 if len(album) >= FEW else 3)


def tuned_in_full(
    prior: Prior,
    generator: Generator,
    anchors: Anchors,
    config: InvertConfig,
    name: str = "full",
    pivoting: TuneConfig | None = None,
) -> Method:
    """A generator all of whose weights were tuned, inverting in the alpha-space of the same anchors; with
    `pivoting` they then bend around each photo."""
    own = replace(prior, generator=generator)
    # a new adapter changes nothing: its B is zero
    plain = personalised(own, new_person(own, new_adapter(generator, 1, 1.0), anchors), config, name)
    return plain if pivoting is None else bent_in_full(own, plain, pivoting)


def times(config: InvertConfig, factor: int) -> InvertConfig:
    """The configuration with that many times the steps a photo."""
    return replace(config, coarse_steps=config.coarse_steps * factor, fine_steps=config.fine_steps * factor)
