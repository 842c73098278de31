"""From a Gaussian latent and a camera to style vectors (EG3D spec 1.6)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from my3dgen.config import PriorConfig
from my3dgen.ops.bias_act import Activation
from my3dgen.ops.dense import dense


class Dense(nn.Module):
    """An equalized dense layer; `lr_mul` shrinks its stored weights' effect."""

    def __init__(
        self, inputs: int, outputs: int, *, lr_mul: float = 1.0, activation: Activation = "linear"
    ) -> None:
        super().__init__()
        self.lr_mul = lr_mul
        self.activation: Activation = activation
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        return dense(x, self.weight, self.bias, lr_mul=self.lr_mul, activation=self.activation)

    def effective(self) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, " outputs"]]:
        """(weight, bias) with their gains, as of a plain dense layer."""
        return self.weight * (self.lr_mul / math.sqrt(self.weight.shape[1])), self.bias * self.lr_mul


class MappingNetwork(nn.Module):
    """Dense layers on (normalised z, normalised embedding of the camera)."""

    w_avg: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.layers = config.mapping_layers
        # with nothing to see, the embedding is a constant: it gets no gradient, because the
        # normalisation of an all-zero vector multiplies gradients by 1e4
        self.sees_camera = not config.c_gen_conditioning_zero and config.c_scale != 0
        self.c_scale = config.c_scale
        self.embed = Dense(config.c_dim, config.w_dim)
        for i in range(self.layers):
            inputs = config.z_dim + config.w_dim if i == 0 else config.w_dim
            layer = Dense(inputs, config.w_dim, lr_mul=config.mapping_lr_mul, activation="lrelu")
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(
        self, z: Float[Tensor, "batch z_dim"], c: Float[Tensor, "batch 25"] | None
    ) -> Float[Tensor, "batch w_dim"]:
        """Style vectors of latents z; `c` may be None if the prior ignores the camera."""
        if self.sees_camera:
            if c is None:
                raise ValueError("this prior's mapping needs a camera")
            seen = _normalised(self.embed(c * self.c_scale))
        else:
            seen = _normalised(self.embed.bias.detach()[None]).expand(len(z), -1)
        w = torch.cat([_normalised(z), seen], dim=1)
        for i in range(self.layers):
            w = self.get_submodule(f"fc{i}")(w)
        return w


def truncate(
    w: Float[Tensor, "batch w_dim"],
    w_avg: Float[Tensor, " w_dim"],
    num_ws: int,
    psi: float,
    cutoff: int | None,
) -> Float[Tensor, "batch num_ws w_dim"]:
    """Repeat w for every layer, the first `cutoff` (None: all) pulled to the mean by psi."""
    ws = w[:, None].expand(-1, num_ws, -1)
    if psi == 1:
        return ws.contiguous()
    cutoff = num_ws if cutoff is None else cutoff
    pulled = w_avg + psi * (w - w_avg)
    return torch.cat([pulled[:, None].expand(-1, cutoff, -1), ws[:, cutoff:]], dim=1)


@torch.no_grad()
def update_w_avg(mapping: MappingNetwork, w: Float[Tensor, "batch w_dim"], decay: float = 0.998) -> None:
    """Move the running mean of w toward the mean of a batch, in place."""
    mapping.w_avg.lerp_(w.mean(0).to(mapping.w_avg), 1 - decay)


def _normalised(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
