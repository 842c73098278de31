"""The discriminator's side of a step: real views, the generator's latest images, a gradient penalty."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.pretrain import objectives
from my3dgen.pretrain.discriminator import Discriminator


@dataclass(frozen=True)
class Judged:
    """What the discriminator learns from: real views and the generator's latest images."""

    real: Float[Tensor, "batch 3 height width"]
    real_camera: Float[Tensor, "batch 25"]
    fake: Float[Tensor, "batch 3 height width"]
    fake_raw: Float[Tensor, "batch 3 low low"]
    fake_camera: Float[Tensor, "batch 25"]


class Judging:
    """Forward and backward of a discriminator. `dtype` is that of convolutions, `r1` weights the penalty.

    With `taps` it sees images blurred by them (EG3D spec 4.2): write into them to fade.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        r1: float,
        dtype: torch.dtype,
        taps: Float[Tensor, " taps"] | None = None,
    ):
        self.discriminator, self.r1, self.dtype, self.taps = discriminator, r1, dtype, taps

    def judge(self, judged: Judged) -> dict[str, Tensor]:
        """The discriminator on real views and on the generator's latest images."""
        return self._judge(judged, penalty=None)

    def judge_with_penalty(self, judged: Judged, interval: int) -> dict[str, Tensor]:
        """The same with the lazy gradient penalty, scaled by the interval at which it is applied."""
        return self._judge(judged, penalty=interval)

    def precision(self, device: torch.device) -> torch.autocast:
        """The context of networks that work in `dtype`."""
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def seen(self, images: Tensor) -> Tensor:
        """Images as the discriminator is shown them."""
        return images if self.taps is None else objectives.blurred(images, self.taps)

    def _judge(self, judged: Judged, penalty: int | None) -> dict[str, Tensor]:
        discriminator, low = self.discriminator, judged.fake_raw.shape[-1]
        real_image, fake_image = self.seen(judged.real), self.seen(judged.fake)
        real_raw = self.seen(objectives.downsample(judged.real, low))
        real = discriminator(real_image, real_raw, judged.real_camera, dtype=self.dtype)
        fake = discriminator(fake_image, judged.fake_raw, judged.fake_camera, dtype=self.dtype)
        loss = objectives.discriminator_loss(real, fake)
        out = {"discriminator": loss.detach(), "real": real.mean().detach(), "fake": fake.mean().detach()}
        if penalty is not None:
            r1 = objectives.gradient_penalty(
                discriminator, real_image, real_raw, judged.real_camera, self.dtype
            )
            loss = loss + self.r1 / 2 * penalty * r1
            out["r1"] = r1.detach()
        loss.backward()
        return out
