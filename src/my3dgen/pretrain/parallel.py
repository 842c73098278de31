"""Several processes, one model: start, seed and average (torchrun sets the environment)."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

LETTING_GO = 0.5
"""Seconds that threads get to let go of what was exchanged last, far more than it takes on a busy machine."""


@dataclass(frozen=True)
class Ranks:
    """This process among `size` equal ones."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0


def join(device: str | None = None) -> Ranks:
    """Join the group that torchrun made, or stand alone. CUDA is used when present."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available() if device is None else device == "cuda"
    local = int(os.environ.get("LOCAL_RANK", 0))
    place = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", device_id=place if cuda else None)
    return Ranks(rank, size, place)


def leave() -> None:
    """Leave the group, if there is one.

    Gloo's threads outlive the group. One that still lets go of the last exchange's tensors when the
    interpreter ends aborts the process, so it gets a moment, with Python's lock free, to do that.
    """
    if dist.is_initialized():
        time.sleep(LETTING_GO)
        dist.destroy_process_group()


def settle_gradients(parameters: Iterable[Tensor], ranks: Ranks, clip: float) -> Float[Tensor, ""]:
    """Average gradients over the processes in one exchange, drop what is not finite, clip the norm.

    Returns the norm before clipping.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    if ranks.size > 1:
        dist.all_reduce(flat)
        flat /= ranks.size
    flat.nan_to_num_(0.0, 0.0, 0.0)
    norm = flat.norm()
    flat *= (clip / (norm + 1e-6)).clamp_max(1.0)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
    return norm


def mean_over(value: Float[Tensor, ""], ranks: Ranks) -> float:
    """The mean of the processes' values."""
    if ranks.size > 1:
        value = value.clone()
        dist.all_reduce(value)
    return float(value) / ranks.size


def agree(value: float, ranks: Ranks) -> float:
    """The first process's value, for decisions all must share (such as when time is up)."""
    if ranks.size == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=ranks.device)
    dist.broadcast(shared, 0)
    return float(shared)
