"""A convolutional network written as a list of steps, run in torch.

The face networks come as TFLite files. `scripts/convert_networks.py` turned each into a list of
steps in NCHW order, stored as JSON in the metadata of its safetensors file; this module runs
such a list. It is differentiable and takes any batch size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from my3dgen.weights.networks import load_tensors


def conv(step: dict, w: dict[str, Tensor], x: Tensor) -> Tensor:
    if any(step.get("pad", ())):
        x = F.pad(x, step["pad"])
    return F.conv2d(x, w[step["weight"]], w[step["bias"]], step["stride"], groups=step["groups"])


def rows(step: dict, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """Pixels in reading order, each giving channels / width rows of `width` numbers."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, step["width"])


STEPS: dict[str, Callable[..., Tensor]] = {
    "conv": conv,
    "conv_transpose": lambda s, w, x: F.conv_transpose2d(x, w[s["weight"]], w[s["bias"]], s["stride"]),
    "prelu": lambda s, w, x: F.prelu(x, w[s["weight"]]),
    "relu": lambda s, w, x: F.relu(x),
    "hardswish": lambda s, w, x: F.hardswish(x),
    "sigmoid": lambda s, w, x: torch.sigmoid(x),
    "add": lambda s, w, x, y: x + y,
    "mul": lambda s, w, x, y: x * y,
    "mean": lambda s, w, x: x.mean((2, 3), keepdim=True),
    "max_pool": lambda s, w, x: F.max_pool2d(x, s["size"]),
    "pad_channels": lambda s, w, x: F.pad(x, (0, 0, 0, 0, 0, s["count"])),
    "resize": lambda s, w, x: F.interpolate(x, tuple(s["size"]), mode="bilinear", align_corners=False),
    "rows": rows,
    "concatenate_rows": lambda s, w, *xs: torch.cat(xs, 1),
}


class Graph(nn.Module):
    """One of our image networks by its name in the manifest, frozen, in eval mode."""

    def __init__(self, name: str):
        super().__init__()
        tensors, graph = load_tensors(name)
        assert graph is not None, name
        self.input: int = graph["inputs"][0]
        self.outputs: list[int] = graph["outputs"]
        self.steps: list[dict] = graph["steps"]
        self.names = {key: key.replace(".", "_") for key in tensors}
        for key, value in tensors.items():
            self.register_buffer(self.names[key], value)
        # A value is dropped after its last use, so that a batch needs little memory.
        self.last = {i: k for k, step in enumerate(self.steps) for i in step["in"]}
        self.last |= dict.fromkeys(self.outputs, len(self.steps))

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """The network's outputs in its own order."""
        weights = {key: getattr(self, name) for key, name in self.names.items()}
        values = {self.input: image}
        for k, step in enumerate(self.steps):
            result = STEPS[step["op"]](step, weights, *(values[i] for i in step["in"]))
            values[step["out"]] = F.relu(result) if step.get("then") == "relu" else result
            for i in step["in"]:
                if self.last[i] == k:
                    values.pop(i, None)
        return [values[i] for i in self.outputs]
