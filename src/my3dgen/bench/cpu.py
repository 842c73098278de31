"""What a computer without a GPU does with the embedded prior, and which ways of doing it pay there."""

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from my3dgen.bench.clock import Timing, time_call
from my3dgen.bench.machine import Ceilings
from my3dgen.bench.personalize import inversion_step, prior_of, training_step
from my3dgen.bench.render import works_of
from my3dgen.bench.row import Row, psnr, row
from my3dgen.bench.subjects import Scene, adapter_of, scene_of
from my3dgen.fast import Captured
from my3dgen.personalize import QUALITIES, with_merged_steps
from my3dgen.prior.generator import Generator

PLAIN = "image, fp32"


def bench_cpu(name: str, repeats: int, steps: int, compiled: bool, ceilings: Ceilings) -> Iterator[Row]:
    """Pictures and views of planes that are kept, in several ways; steps of personalization and inversion."""
    prior = prior_of(name, "cpu")
    one = scene_of(prior.generator, 1)
    works, calls = works_of(prior.generator, one), ways(prior.generator, one)
    if compiled:
        calls["image, fp32, compiled"] = compiled_image(prior.generator, one)
    truth = calls[PLAIN]()
    for way, timing in in_turns(calls, repeats).items():
        yield row(
            f"{name} {way}",
            1,
            timing,
            work=works[way.split(",")[0]],
            ceilings=ceilings,
            arithmetic="bf16" if "bf16" in way else "fp32",
            psnr=None if "person" in way else psnr(calls[way](), truth),
        )
    standard, most = with_merged_steps(QUALITIES["standard"]), QUALITIES["max"]
    yield training_step(f"{name} training step, draft and standard", prior, standard, "cpu", steps)
    yield training_step(f"{name} training step, max", prior, most, "cpu", steps)
    yield inversion_step(f"{name} inversion step, all rays", prior, "cpu", steps)


def ways(generator: Generator, one: Scene) -> dict[str, Callable[[], Tensor]]:
    """Calls that return the same picture, or that of a person, by what sets them apart."""
    ordered = copy.deepcopy(generator).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    inferences = {
        "fp32": Captured(generator),
        "bf16": Captured(generator, half=True),
        "fp32, weights channels-last": Captured(ordered),
        "fp32, a person": Captured(generator, adapter=adapter_of(generator, 0)),
        "bf16, a person": Captured(generator, adapter=adapter_of(generator, 0), half=True),
    }
    calls: dict[str, Callable[[], Tensor]] = {}
    for kind, inference in inferences.items():
        inference.hold(one.ws)
        calls[f"image, {kind}"] = lambda i=inference: i.image(one.ws, one.cameras).image
        calls[f"view, {kind}"] = lambda i=inference: i.view(one.cameras).image
    return calls


def compiled_image(generator: Generator, one: Scene) -> Callable[[], Tensor]:
    """The same by `torch.compile`, which takes minutes the first time."""
    forward = torch.compile(lambda ws, cameras: generator(ws, cameras).image)
    return lambda: forward(one.ws, one.cameras)


def in_turns(calls: Mapping[str, Callable[[], Tensor]], repeats: int) -> dict[str, Timing]:
    """Timings of calls that take turns, so that what else the machine does falls on all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            time = time_call(call, "cpu", repeats=1, warm_up=0)
            if turn:  # the first does not count
                times[name].append(time.median_ms)
    return {name: Timing.of(found) for name, found in times.items()}
