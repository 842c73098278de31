"""What a phone does to a picture: mild blur, white balance, exposure and noise, on the person only."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad

from my3dgen.synthetic.factors import normals

_STREAM = 2  # of the random numbers; 0 holds the factors and 1 the poses


def photograph(
    rgb: Float[Tensor, "batch 3 height width"], alpha: Float[Tensor, "batch 1 height width"], seeds: list[int]
) -> Float[Tensor, "batch 3 height width"]:
    """Pictures in [0, 1] on white as a phone would take them, deterministic in `seeds`.

    The background stays white, as an overexposed wall does: balance, exposure and noise follow `alpha`.
    """
    chance = normals(seeds, 5, stream=_STREAM, device=rgb.device)
    chance = 2 * torch.tanh(chance / 2)
    shape = (-1, 1, 1, 1)
    warmth, tint, brightness = (chance[:, k].view(shape) for k in range(3))
    gain = torch.cat([1 + 0.035 * warmth, 1 + 0.012 * tint, 1 - 0.035 * warmth], 1) * (1 + 0.04 * brightness)
    person = (rgb - (1 - alpha)) * gain
    noise = torch.stack(
        [normals([seed], rgb[0].numel(), stream=_STREAM + 1).view_as(rgb[0]) for seed in seeds]
    ).to(rgb)
    strength = 0.010 * (1 + 0.4 * chance[:, 3]).view(shape)
    person = person + alpha * noise * strength * (0.4 + person.clamp(0, 1).sqrt())
    return (blur(person, 0.55 + 0.1 * chance[:, 4], reach=2) + 1 - alpha).clamp(0, 1)


def blur(
    image: Float[Tensor, "batch channels height width"], sigma: Float[Tensor, " batch"], reach: int
) -> Float[Tensor, "batch channels height width"]:
    """A Gaussian of each picture's own width, in pixels, cut off at `reach`."""
    steps = torch.arange(-reach, reach + 1, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma.clamp_min(0.05)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(image.shape[1], 0)
    flat = pad(image.flatten(0, 1)[None], (reach,) * 4, mode="replicate")
    flat = conv2d(flat, kernel[:, None, :, None], groups=len(kernel))
    return conv2d(flat, kernel[:, None, None, :], groups=len(kernel))[0].view_as(image)
