"""N processes draw together what one process with N times the batch would draw.

All processes have the same random numbers. Within `Shared` every draw is made for the batches of all of
them, and each keeps its share, so a step of N processes is the step of one. Shares are taken a quarter of a
batch at a time: process r has the quarters' r-th parts, so its groups of four in the discriminator's
`deviation` are groups of the whole batch, and halves and alternate rows of its batch are those of the whole.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GROUP = 4
"""Images that the discriminator compares with each other; batches divide by it."""

_LIKE: dict[Callable, Callable] = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
_DRAWS = (torch.rand, torch.randn, torch.randint, *_LIKE)


def share(whole: Tensor, rank: int, size: int, block: int) -> Tensor:
    """The rows of `whole` that belong to process `rank` of `size`: every size-th block of `block` rows."""
    return whole.unflatten(0, (-1, size, block))[:, rank].flatten(0, 1)


class Shared(TorchFunctionMode):
    """Within this context `torch.rand`, `randn`, `randint` and their `_like` forms give shares.

    `batch` is that of this process. Rows that are no whole number of blocks (quarters of a batch) are one
    block. What is drawn is as random as ever, whatever its first axis means.
    """

    def __init__(self, rank: int, size: int, batch: int):
        super().__init__()
        self.rank, self.size, self.block = rank, size, max(batch // GROUP, 1)

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None
    ) -> Any:
        """Enlarge a draw and keep this process's share; anything else goes its way."""
        kwargs = dict(kwargs or {})
        if self.size == 1 or func not in _DRAWS:
            return func(*args, **kwargs)
        if func in _LIKE:
            like = args[0]
            kwargs = {"dtype": like.dtype, "device": like.device} | kwargs
            func, args = _LIKE[func], (like.shape,)
        bounds, shape = _parts(func, args, kwargs)
        if not shape:
            return func(*bounds, size=(), **kwargs)
        whole = func(*bounds, size=(shape[0] * self.size, *shape[1:]), **kwargs)
        block = self.block if shape[0] % self.block == 0 else shape[0]
        return share(whole, self.rank, self.size, block)


def _parts(func: Callable, args: Sequence, kwargs: dict) -> tuple[Sequence, tuple[int, ...]]:
    """(bounds of randint, shape) of a draw's arguments; `size` is taken out of `kwargs`."""
    if "size" in kwargs:
        return args, tuple(kwargs.pop("size"))
    if func is torch.randint:
        return args[:-1], tuple(args[-1])
    return (), tuple(args[0] if args and not isinstance(args[0], int) else args)
