"""The ways to reproduce a person that are compared: the prior alone, LoRA, and all weights tuned.

Each inverts a photo in its own latent space, all with the same number of steps a photo. The prior alone
searches W. A personalised generator searches the alpha-space of its anchors, as the paper does: elsewhere
it has learned nothing about the person. The prior starts where `invert` starts it: from its encoder, or
from one latent fitted to all photos given. That comes on top of the steps and makes the baseline stronger.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from my3dgen.anchors import Anchors
from my3dgen.faces.album import Album
from my3dgen.invert import FEW, PLACE_FACTOR, QUALITIES, InvertConfig, invert, place
from my3dgen.lora import Adapter, new_adapter
from my3dgen.person import Person, new_person
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import Prior

Quality = Literal["draft", "standard", "max"]


@dataclass(frozen=True)
class Found:
    """Photos inverted by a method, in their order."""

    ws: Float[Tensor, "batch num_ws w_dim"]
    cameras: Float[Tensor, "batch 25"]


@dataclass(frozen=True)
class Method:
    """A way to reproduce a person."""

    name: str
    """`prior`, `lora` or `full`."""
    latent: str
    """Where photos are inverted to, in words."""
    generator: Generator
    adapter: Adapter | None
    invert: Callable[[Album, bool], Found]
    """Latents and cameras of photos; the flag says whether cameras may be corrected."""


def prior_alone(prior: Prior, quality: Quality) -> Method:
    """The frozen prior, inverting in W."""

    def find(album: Album, correct_cameras: bool) -> Found:
        config = times(QUALITIES[quality], factor_for(album))
        # alone_factor: `invert` shall not give a lonely photo more steps on its own account
        found = invert(prior, album, replace(config, cameras=correct_cameras, alone_factor=1))
        return Found(found.ws, found.cameras)

    return Method("prior", "W", prior.generator, None, find)


def personalised(prior: Prior, person: Person, quality: Quality, name: str = "lora") -> Method:
    """A person's generator, inverting in the alpha-space of the person's anchors."""

    def find(album: Album, correct_cameras: bool) -> Found:
        # `place` multiplies by PLACE_FACTOR itself
        config = times(QUALITIES[quality], factor_for(album) // PLACE_FACTOR)
        found = place(prior, person, album, replace(config, cameras=correct_cameras))
        return Found(found.ws, found.cameras)

    return Method(name, "alpha-space", prior.generator, person.adapter, find)


def factor_for(album: Album) -> int:
    """How many times the steps of an anchor a photo gets: more when it stands alone."""
    return PLACE_FACTOR * (1 if len(album) >= FEW else 3)


def tuned_in_full(prior: Prior, generator: Generator, anchors: Anchors, quality: Quality) -> Method:
    """A generator all of whose weights were tuned, inverting in the alpha-space of the same anchors."""
    own = replace(prior, generator=generator)
    # a new adapter changes nothing: its B is zero
    return personalised(own, new_person(own, new_adapter(generator, 1, 1.0), anchors), quality, "full")


def times(config: InvertConfig, factor: int) -> InvertConfig:
    """The configuration with that many times the steps a photo."""
    return replace(config, coarse_steps=config.coarse_steps * factor, fine_steps=config.fine_steps * factor)
