"""From the features of a point to its density and colour (EG3D spec 1.8)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from my3dgen.config import PriorConfig
from my3dgen.ops.fused_render import Perceptron
from my3dgen.prior.mapping import Dense


class Decoder(nn.Module):
    """A perceptron with one hidden softplus layer."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        m = config.decoder_lr_mul
        self.net = nn.Sequential(
            Dense(config.plane_features, config.decoder_hidden, lr_mul=m),
            nn.Softplus(),
            Dense(config.decoder_hidden, 1 + config.render_features, lr_mul=m),
        )

    def perceptron(self) -> Perceptron:
        """The weights with their gains, in one piece."""
        into, out_of = (layer.effective() for layer in self.net if isinstance(layer, Dense))
        return Perceptron(*into, *out_of)

    def forward(
        self, features: Float[Tensor, "batch points features"]
    ) -> tuple[Float[Tensor, "batch points colours"], Float[Tensor, "batch points"]]:
        """(colours in about [0, 1], raw densities) in float32; hidden layers in the features' dtype."""
        decoded = self.net[2](F.softplus(self.net[0](features.flatten(0, 1)))).float()
        # one split: its gradient is put together in one pass
        densities, colours = decoded.unflatten(0, features.shape[:2]).split([1, decoded.shape[1] - 1], -1)
        return colours.sigmoid() * 1.002 - 0.001, densities[..., 0]
