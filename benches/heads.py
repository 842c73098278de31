"""How fast are the synthetic heads? Milliseconds per stage, images per second, memory; and a sheet to see.

    python benches/heads.py --scenes 12 --views 3 --device cuda --sheet heads.png

The seeds of the sheet are consecutive, not picked. The last line is one JSON object.
"""

import argparse
import json
import time

import torch
from PIL import Image

from my3dgen.cameras import camera_from_angles
from my3dgen.synthetic import hair, render, scene
from my3dgen.synthetic.factors import sample_factors


def main() -> None:
    """Parse the options, measure, draw."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scenes", type=int, default=8, help="heads per call")
    options.add_argument("--views", type=int, default=3, help="cameras per head")
    options.add_argument("--size", type=int, default=256)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--sheet", default=None, help="picture of `--scenes` heads, all views")
    args = options.parse_args()

    clock = Clock(args.device)
    clock.watch(scene, "build_geometry", "geometry")
    clock.watch(hair, "grow_hair", "hair")
    clock.watch(hair, "fit_to_heads", "hair")
    clock.watch(scene, "shadow_maps", "shadow maps")
    clock.watch(scene, "visibility", "visibility")
    clock.watch(scene, "build_scenes", "all of the scene")
    clock.watch(render, "_draw", "raster")
    clock.watch(render, "_shade", "shade")
    clock.watch(render, "_develop", "develop")
    clock.watch(render, "render_views", "all of the views")

    yaw = torch.linspace(-0.7, 0.7, args.views) if args.views > 1 else torch.zeros(1)
    cameras = camera_from_angles(yaw, torch.full_like(yaw, 0.05))
    cameras = cameras[None].expand(args.scenes, -1, -1).to(args.device)
    rows, total = [], 0.0
    for repeat in range(args.repeats + 1):
        first = args.seed + repeat * args.scenes
        factors = sample_factors(range(first, first + args.scenes)).to(args.device)
        if repeat == 1:  # the first call also loads the asset and warms up
            clock.reset()
        start = clock.now()
        views = render.render_views(scene.build_scenes(factors, args.device), cameras, args.size)
        total += (clock.now() - start) * (repeat > 0)
        rows.append(views.rgb)
        print(f"call {repeat}: {clock.now() - start:.3f} s", flush=True)

    images = args.repeats * args.scenes * args.views
    peak = torch.cuda.max_memory_allocated() / 2**30 if args.device.startswith("cuda") else None
    print(f"\n{'stage':20s} {'ms per call':>12s} {'ms per image':>13s}")
    for name, seconds in clock.seconds.items():
        print(f"{name:20s} {1e3 * seconds / args.repeats:12.1f} {1e3 * seconds / images:13.2f}")
    print(f"images/s {images / total:.1f}" + (f", peak memory {peak:.1f} GiB" if peak else ""))
    if args.sheet:
        _sheet(rows[0], args.sheet)
    print(
        json.dumps(
            {
                "device": args.device,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "scenes": args.scenes,
                "views": args.views,
                "size": args.size,
                "images_per_s": round(images / total, 2),
                "peak_gib": peak and round(peak, 2),
                "ms_per_image": {k: round(1e3 * v / images, 3) for k, v in clock.seconds.items()},
            }
        )
    )


class Clock:
    """Seconds spent in functions, waiting for the device before and after each."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """Seconds, with the device's work done."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def reset(self) -> None:
        """Forget what was measured."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def watch(self, module: object, name: str, stage: str) -> None:
        """Count the time of `module.name` under `stage`."""
        function = getattr(module, name)
        self.seconds.setdefault(stage, 0.0)

        def timed(*args, **kwargs):
            start = self.now()
            result = function(*args, **kwargs)
            self.seconds[stage] += self.now() - start
            return result

        setattr(module, name, timed)


def _sheet(rgb: torch.Tensor, path: str, columns: int = 8) -> None:
    """Heads side by side, their views below one another."""
    rgb = rgb.cpu()
    blank = torch.full_like(rgb[:1], 255)
    missing = -len(rgb) % columns
    rgb = torch.cat([rgb, *[blank] * missing]).unflatten(0, (-1, columns))
    block, column, view, _, height, width = rgb.shape
    sheet = rgb.permute(0, 2, 4, 1, 5, 3).reshape(block * view * height, column * width, 3)
    Image.fromarray(sheet.numpy()).save(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
