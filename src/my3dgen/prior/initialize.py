"""Random weights for a new generator (EG3D spec 1.2 to 1.5)."""

import torch
from torch import nn

from my3dgen.prior.mapping import Dense
from my3dgen.prior.synthesis import Affine


@torch.no_grad()
def initialize(generator: nn.Module, rng: torch.Generator) -> None:
    """Fill every parameter in place: weights, constants and noise maps from N(0, 1), biases 0.

    Dense weights are divided by their learning-rate multiplier, affine biases are 1, noise
    strengths 0. Draws happen on the CPU generator `rng`, in the order of the state dict.
    """
    modules = dict(generator.named_modules())
    for name, tensor in generator.state_dict().items():
        path, _, leaf = name.rpartition(".")
        module = modules[path]
        if tensor.is_meta or leaf in ("resample_filter", "w_avg"):
            continue
        if leaf in ("bias", "noise_strength"):
            tensor.fill_(1.0 if isinstance(module, Affine) else 0.0)
        else:
            scale = 1 / module.lr_mul if isinstance(module, Dense) else 1.0
            tensor.copy_(torch.randn(tensor.shape, generator=rng) * scale)
