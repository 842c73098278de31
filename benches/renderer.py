"""How fast is volume rendering on a GPU? The readable renderer and the fused kernels, forward and backward.

    python benches/renderer.py
    python benches/renderer.py --sweep --only ffhq512-128 --batch 16

Milliseconds per image, the median over CUDA events; memory above what stood before; errors against the
readable renderer in float32, as shares of its root mean square. `--sweep` times the kernels over how they
share the work. The last line is one JSON object.
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import torch
from torch import Tensor

from my3dgen.cameras import camera_from_angles
from my3dgen.config import PRESETS, PriorConfig
from my3dgen.ops.fused_render import FusedField, Tuning
from my3dgen.ops.triplane import sample_planes
from my3dgen.prior.decoder import Decoder
from my3dgen.prior.rays import camera_rays
from my3dgen.prior.render import RenderedRays, Sampling, render_rays

CASES = (("ffhq512-128", 1), ("ffhq512-128", 4), ("ffhq512-128", 16), ("mini", 32))
WARM_UP = 5
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Scene:
    """Clouds in smooth planes, a view of each."""

    def __init__(self, config: PriorConfig, batch: int, dtype: torch.dtype) -> None:
        self.config, self.dtype = config, dtype
        rng = torch.Generator("cuda").manual_seed(0)
        shape = (batch * 3, config.plane_features, 32, 32)
        noise = torch.randn(shape, generator=rng, device="cuda")
        planes = torch.nn.functional.interpolate(noise, (config.plane_resolution,) * 2, mode="bicubic")
        self.planes = planes.unflatten(0, (batch, 3)).contiguous().requires_grad_()
        self.decoder = Decoder(config).cuda()
        with torch.no_grad():
            for parameter in self.decoder.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng, device="cuda"))
            self.decoder.net[2].weight *= 10
            features = self.planes[:1].mean(1).flatten(2).mT  # half of space is denser than 0
            self.decoder.net[2].bias[0] -= self.decoder(features)[1].median()
        yaw = torch.linspace(-0.5, 0.5, batch) if batch > 1 else torch.zeros(1)
        cameras = camera_from_angles(yaw, torch.full_like(yaw, 0.05)).cuda()
        self.rays = camera_rays(cameras, config.neural_rendering_resolution)

    def render(self, tuning: Tuning | None, *, fused: bool) -> RenderedRays:
        """All views."""
        config, planes, dtype = self.config, self.planes, self.dtype

        def field(points: Tensor) -> tuple[Tensor, Tensor]:
            scaled = points * (2 / config.box_warp)
            return self.decoder(sample_planes(planes, scaled, config.plane_mode, dtype))

        data = FusedField(
            planes, self.decoder.perceptron(), config.plane_mode, config.box_warp, dtype, tuning
        )
        sampling = Sampling.of(config)
        if fused and not data.serves(*self.rays, sampling.coarse, sampling.fine):
            raise SystemExit("the kernels do not serve this GPU or these sizes")
        return render_rays(field, *self.rays, config, sampling, None, data if fused else None)

    def leaves(self, *, decoder: bool) -> list[Tensor]:
        """What gets a gradient: planes, as when a person is learnt; and the decoder, as when a prior is."""
        self.decoder.requires_grad_(decoder)
        return [self.planes, *(self.decoder.parameters() if decoder else ())]


def measure(scene: Scene, tuning: Tuning | None, *, fused: bool, repeats: int) -> dict[str, float]:
    """Milliseconds per image forward and backward, and GiB at the peak of both."""
    batch = len(scene.planes)
    found = {}
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        found["forward"] = _median(lambda: scene.render(tuning, fused=fused), repeats) / batch
    found["forward_gib"] = (torch.cuda.max_memory_allocated() - before) / 2**30
    for name, decoder in (("backward", False), ("backward_decoder", True)):
        leaves = scene.leaves(decoder=decoder)
        rays = scene.render(tuning, fused=fused)
        loss = rays.colours.square().sum() + rays.opacity.sum()
        found[name] = (
            _median(
                lambda loss=loss, leaves=leaves: torch.autograd.grad(loss, leaves, retain_graph=True), repeats
            )
            / batch
        )
        del rays, loss
    found["peak_gib"] = (torch.cuda.max_memory_allocated() - before) / 2**30
    return found


def errors(config: PriorConfig, dtype: torch.dtype) -> dict[str, float]:
    """Of one view and its gradients: the kernels' and the readable renderer's, against float32."""
    found = {}
    seen = {}
    for name, precision, fused in (
        ("exact", torch.float32, False), ("fused", dtype, True), ("readable", dtype, False),
    ):  # fmt: skip
        scene = Scene(config, 1, precision)
        rays = scene.render(None, fused=fused)
        loss = rays.colours.square().sum() + rays.opacity.sum()
        gradients = torch.autograd.grad(loss, scene.leaves(decoder=True))
        parts = rays.colours, rays.opacity, rays.clamped_depth(), gradients[0], gradients[1]
        seen[name] = [x.detach() for x in parts]
    for name in ("fused", "readable"):
        labels = "colours", "opacity", "depth", "planes' gradient", "decoder's gradient"
        for label, one, truth in zip(labels, seen[name], seen["exact"], strict=True):
            found[f"{name} {label}"] = ((one - truth).square().mean() / truth.square().mean()).sqrt().item()
    return found


def tunings() -> Iterator[Tuning]:
    """Ways to share the work."""
    for rays, warps, stages, chunk in itertools.product((16, 32, 64, 128), (1, 2, 4, 8), (1, 2, 3), (8, 16)):
        if 16 <= rays // warps <= 32:  # a warp's part of a matrix product is 16 rows
            yield Tuning(rays=rays, warps=warps, stages=stages, chunk=chunk)


def _median(work: Callable[[], object], repeats: int) -> float:
    """Milliseconds of the device."""
    taken = []
    for i in range(WARM_UP + repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        if i >= WARM_UP:
            taken.append(start.elapsed_time(end))
    return statistics.median(taken)


def main() -> None:
    """Parse the options, measure, print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--repeats", type=int, default=30)
    options.add_argument("--dtype", choices=DTYPES, default="bf16")
    options.add_argument("--only", choices=PRESETS, default=None, help="one preset alone")
    options.add_argument("--batch", type=int, default=None, help="instead of the usual batches")
    options.add_argument("--sweep", action="store_true", help="time ways to share the work, fastest last")
    args = options.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: this bench needs one")
    dtype = DTYPES[args.dtype]
    cases = [(name, args.batch or batch) for name, batch in CASES if args.only in (None, name)]
    rows = []
    for name, batch in dict.fromkeys(cases):
        scene = Scene(replace(PRESETS[name]), batch, dtype)
        if args.sweep:
            rows += _sweep(scene, name, batch, args.repeats)
            continue
        for fused in (False, True):
            taken = measure(scene, None, fused=fused, repeats=args.repeats)
            rows.append({"preset": name, "batch": batch, "fused": fused, **taken})
            _show(rows[-1])
    report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "dtype": args.dtype,
        "repeats": args.repeats,
        "rows": rows,
        "errors": {name: errors(PRESETS[name], dtype) for name in dict.fromkeys(name for name, _ in cases)},
    }
    for name, found in report["errors"].items():
        print(f"\nerrors of {name}")
        for label, error in found.items():
            print(f"  {label:30s} {error:.2e}")
    print(json.dumps(report))


def _sweep(scene: Scene, name: str, batch: int, repeats: int) -> list[dict]:
    rows = []
    for tuning in tunings():
        try:
            taken = measure(scene, tuning, fused=True, repeats=repeats)
        except Exception as error:  # of Triton: too much shared memory, mostly
            print(f"{asdict(tuning)}: {type(error).__name__}: {str(error)[:80]}", flush=True)
            continue
        rows.append({"preset": name, "batch": batch, "fused": True, **asdict(tuning), **taken})
        _show(rows[-1])
    return sorted(rows, key=lambda row: -row["forward"])


def _show(row: dict) -> None:
    print(
        "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True
    )


if __name__ == "__main__":
    main()
