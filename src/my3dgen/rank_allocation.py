"""A parameter budget spent where it helps: low-rank components are kept by importance.

An adapter is trained at a generous rank for a while. Then the factors of every layer are turned to the
singular vectors of their product, so that its components are independent; a component's importance is the
mean square, over photos, of the loss's derivative by a factor on the component (its Fisher information:
magnitude and sensitivity in one). Those that give most for their numbers stay, and training goes on. The idea
is AdaLoRA's (arXiv 2303.10512), with one cut instead of a schedule.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from my3dgen.errors import UserError
from my3dgen.lora import Adapter
from my3dgen.ranks import groups_of


@torch.no_grad()
def in_singular_basis(adapter: Adapter) -> Adapter:
    """The same change of every weight, its components orthogonal and in falling order.

    Rows of A get the length that they had on average, so that an optimiser's steps mean what they did; what
    is beyond the rank of the product is zero.
    """
    tensors = dict(adapter.tensors)
    for path in adapter.ranks:
        a, b = (adapter.tensors[f"{path}.lora_{x}"].double() for x in "AB")
        (left, upper), (right, lower) = torch.linalg.qr(b), torch.linalg.qr(a.T)
        u, sizes, v = torch.linalg.svd(upper @ lower.T, full_matrices=False)
        length = (a.square().sum() / len(a)).sqrt().clamp_min(1e-12)
        new_a, new_b = torch.zeros_like(a), torch.zeros_like(b)
        new_a[: len(sizes)] = length * (right @ v.T).T
        new_b[:, : len(sizes)] = left @ u * (sizes / length)
        tensors |= {f"{path}.lora_A": new_a.float(), f"{path}.lora_B": new_b.float()}
    return replace(adapter, tensors=tensors)


def importances(
    adapter: Adapter, loss_of_step: Callable[[int], Tensor], steps: Iterable[int]
) -> dict[str, Float[Tensor, " components"]]:
    """Path of every adapted weight -> mean square derivative of the loss by a factor on each component.

    `loss_of_step` is the loss of a numbered step with this adapter, whose tensors are leaves.
    """
    factors = {path: adapter.tensors[f"{path}.lora_B"] for path in adapter.ranks}
    total = {path: torch.zeros_like(b[0]) for path, b in factors.items()}
    count = 0
    for step in steps:
        gradients = torch.autograd.grad(loss_of_step(step), list(factors.values()), allow_unused=True)
        for (path, b), gradient in zip(factors.items(), gradients, strict=True):
            if gradient is not None:
                total[path] += (b.detach() * gradient).sum(0).square()
        count += 1
    return {path: (value / max(1, count)).cpu() for path, value in total.items()}


def within_budget(
    adapter: Adapter, scores: Mapping[str, Float[Tensor, " components"]], budget: int
) -> dict[str, list[int]]:
    """Path -> components to keep, so that the adapter has at most `budget` numbers, extras included.

    Greedy by importance for each number; components without any are left out. Raises UserError as
    `room_for_components`.
    """
    left, costs = room_for_components(adapter, budget)
    gains = [(float(s) / costs[path], path, i) for path in scores for i, s in enumerate(scores[path])]
    chosen: dict[str, list[int]] = {}
    for gain, path, i in sorted(gains, key=lambda entry: -entry[0]):
        if gain > 0 and costs[path] <= left:
            left -= costs[path]
            chosen.setdefault(path, []).append(i)
    return {path: sorted(numbers) for path, numbers in chosen.items()}


def room_for_components(adapter: Adapter, budget: int) -> tuple[int, dict[str, int]]:
    """(numbers of the budget that are left for components, path -> numbers in one component).

    Raises UserError if no component fits in beside the extras.
    """
    factors = {path: [adapter.tensors[f"{path}.lora_{x}"] for x in "AB"] for path in adapter.ranks}
    costs = {path: a.shape[1] + len(b) for path, (a, b) in factors.items()}
    extras = sum(t.numel() for name, t in adapter.tensors.items() if name.endswith(".delta"))
    if budget - extras < min(costs.values(), default=0) or not costs:
        raise UserError(
            f"a budget of {budget} leaves no room for low-rank factors beside the {extras} numbers of the "
            "extras; raise it, or train fewer extras"
        )
    return budget - extras, costs


@torch.no_grad()
def reduced(adapter: Adapter, chosen: Mapping[str, list[int]]) -> Adapter:
    """The chosen components alone, each with the effect that it had; extras stay. Tensors are new leaves."""
    tensors = {}
    for name, tensor in adapter.tensors.items():
        path, _, kind = name.rpartition(".")
        if kind == "lora_A" and path in chosen:
            tensors[name] = tensor[chosen[path]]
        elif kind == "lora_B" and path in chosen:
            # the scale is alpha / rank, and the rank falls
            tensors[name] = tensor[:, chosen[path]] * (len(chosen[path]) / tensor.shape[1])
        elif kind == "delta":
            tensors[name] = tensor
    return replace(adapter, tensors=tensors).detached().requires_grad_()


def components(adapter: Adapter) -> dict[str, int]:
    """Narrowest group of layers (`my3dgen.ranks`) -> low-rank components in it."""
    counts: dict[str, int] = {}
    for path in adapter.ranks:
        group = groups_of(path)[0]
        counts[group] = counts.get(group, 0) + len(adapter.tensors[f"{path}.lora_A"])
    return counts
