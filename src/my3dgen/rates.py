"""How fast each part of an adapter learns, as factors on the learning rate.

Adam moves every number by about the rate in a step, whatever its gradient. A convolution is demodulated, so
its change counts against weights of size 1; that of an affine is added after the gain, to weights far
smaller; a toRGB is not demodulated, and a bias moves all pixels at once. At one rate for all, the rest
begins to shake before the convolutions, which draw the person's features, have moved far.
"""

from collections.abc import Iterable

from my3dgen.ranks import groups_of

FACTORS = {"convolution": 3.0, "affine": 0.5, "torgb": 0.5, "extras": 0.25}
"""By kind of layer; `extras` are constant, biases and noise strengths. Chosen by measurement."""


def adapter_rates(names: Iterable[str]) -> dict[str, float]:
    """Factors on the learning rate of an adapter's tensors, by their names (`my3dgen.lora.Adapter`)."""
    return {name: FACTORS[_kind_of(name)] for name in names}


def _kind_of(name: str) -> str:
    """The kind of the layer that a tensor of an adapter belongs to."""
    path, _, part = name.rpartition(".")
    if part == "delta":
        return "extras"
    group = groups_of(path)[-1]
    return group if group in FACTORS else "convolution"
