"""From a training state to a prior folder: the mapping fitted to the encoder's latents, weights in fp16."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from my3dgen.errors import UserError
from my3dgen.pretrain import state
from my3dgen.pretrain.gaussian import fit_mapping, has_closed_form
from my3dgen.pretrain.pool import draw_cameras
from my3dgen.prior.encoder import Encoder, EncoderConfig
from my3dgen.prior.generator import Generator
from my3dgen.prior.store import ENCODER, WEIGHTS, write_prior
from my3dgen.progress import track
from my3dgen.synthetic.factors import TRAIN_SEEDS, sample_factors
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

AT_ONCE = 4
"""Heads rendered and encoded together."""
SAVE_EVERY = 10
"""Batches between saves of the latents found so far."""


def publish(source: Path, folder: Path, card: str, *, heads: int = 500, first_seed: int = 500_000) -> Path:
    """Write the prior that the training state in `source` holds to `folder`, which must not exist.

    `heads` training heads from `first_seed` on are rendered and encoded; their Gaussian becomes the
    mapping. The latents are kept beside the state, so an interrupted call goes on; the prior appears
    when it is complete. Raises UserError if it can't become a prior, FileFormatError if it is damaged.
    """
    if heads < 2:
        raise UserError(f"--heads {heads}: choose at least 2; 500 give a good mapping")
    config, _ = state.describe(source)
    if not has_closed_form(config):
        raise UserError(
            f"{source}: can't be published; that takes a mapping of 4 layers with z as long as w and no "
            "camera; train the preset mini"
        )
    encoder = Encoder(EncoderConfig(config.img_resolution, config.w_dim))
    generator = Generator(config)
    for network, name in ((encoder, ENCODER), (generator, WEIGHTS)):
        state.put(network, state.read_weights(source / name), source / name)
    latents = encode_heads(encoder.eval(), heads, first_seed, source / "latents.safetensors")
    fit_mapping(generator.backbone.mapping, latents)
    return write_prior(folder, config, generator.state_dict(), card, half=True, encoder=encoder)


@torch.no_grad()
def encode_heads(
    encoder: Encoder, heads: int, first_seed: int, unfinished: Path
) -> Float[Tensor, "heads w_dim"]:
    """Latents of one view each of `heads` synthetic heads, as training saw them."""
    belongs = fingerprint("encode", first_seed, *encoder.state_dict().values())
    kept = load_checkpoint(unfinished, belongs)
    found = [kept.tensors["latents"]] if kept else []
    done = sum(map(len, found))
    steps = range(done, heads, AT_ONCE)
    for number, start in enumerate(track(steps, "encoding heads", initial=done // AT_ONCE), 1):
        count = min(AT_ONCE, heads - start)
        seeds = range(TRAIN_SEEDS.start + first_seed + start, TRAIN_SEEDS.start + first_seed + start + count)
        cameras = draw_cameras(count, 1, torch.Generator().manual_seed(start))
        views = render_views(build_scenes(sample_factors(seeds)), cameras, size=encoder.config.img_resolution)
        found.append(encoder(views.rgb[:, 0].float() / 127.5 - 1))
        if number % SAVE_EVERY == 0:
            save_checkpoint(unfinished, belongs, {"latents": torch.cat(found)}, {})
    latents = torch.cat(found)[:heads]
    save_checkpoint(unfinished, belongs, {"latents": latents}, {})
    return latents
