"""From a training state to a prior folder: its mapping made or kept, weights in fp16."""

from pathlib import Path

from my3dgen.errors import UserError
from my3dgen.pretrain import state
from my3dgen.pretrain.gaussian import fit_mapping, has_closed_form
from my3dgen.prior.encoder import Encoder, encoder_config
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import ENCODER, WEIGHTS, write_prior


def publish(source: Path, folder: Path, card: str) -> Path:
    """Write the prior that the training state in `source` holds to `folder`, which must not exist.

    The Gaussian of the encoder's latents becomes the mapping, unless the mapping was trained, on pictures;
    then there is no encoder either. The prior appears when it is complete.
    Raises UserError if the state can't become a prior, FileFormatError if it is damaged.
    """
    config, _ = state.describe(source)
    generator = Generator(config)
    if state.kind_of(source) == "pictures":
        state.put(generator, state.read_weights(source / WEIGHTS), source / WEIGHTS)
        return write_prior(folder, config, generator.state_dict(), card, half=True)
    if not has_closed_form(config):
        raise UserError(
            f"{source}: can't be published; that takes a mapping of 4 layers with z as long as w and no "
            "camera; train the preset mini"
        )
    encoder = Encoder(encoder_config(config))
    for network, name in ((encoder, ENCODER), (generator, WEIGHTS)):
        state.put(network, state.read_weights(source / name), source / name)
    fit_mapping(generator.backbone.mapping, *state.read_latents(source, config.w_dim))
    return write_prior(folder, config, generator.state_dict(), card, half=True, encoder=encoder)
