"""Watching a training: figures as JSON lines, and a sheet to look at."""

import json
from pathlib import Path

import torch

from my3dgen.apps.sheet import sheet, to_image
from my3dgen.cameras import camera_from_angles
from my3dgen.evaluate.metrics import psnr
from my3dgen.pretrain.networks import Networks
from my3dgen.pretrain.pool import Pool, draw_cameras
from my3dgen.progress import say
from my3dgen.synthetic.factors import HELD_OUT_SEEDS, sample_factors
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

YAWS = (-0.785, 0.0, 0.785)


class Log:
    """Appends figures to a file and speaks them; does nothing when the path is None."""

    def __init__(self, path: Path | None):
        self.path = path

    def write(self, figures: dict[str, float | int]) -> None:
        """One JSON line; numbers are rounded to five significant digits."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({k: v if isinstance(v, int) else float(f"{v:.5g}") for k, v in figures.items()})
        with self.path.open("a") as file:
            file.write(line + "\n")
        say(line)


@torch.no_grad()
def look(networks: Networks, pool: Pool, path: Path, count: int) -> dict[str, float | int]:
    """`count` held-out heads through the encoder, and sampled ones, as a sheet; PSNR over head pixels."""
    device, generator = networks.device, networks.generator_average
    num_ws = networks.config.num_ws
    seeds = list(HELD_OUT_SEEDS[:count])
    rng = torch.Generator("cpu").manual_seed(0)
    cameras = draw_cameras(count, 2, rng).to(device)
    views = render_views(build_scenes(sample_factors(seeds, device), device), cameras, size=pool.size)
    truth = views.rgb.float() / 127.5 - 1
    mask = (views.alpha[:, :, None].float() / 255 > 0.5).float()
    latent = networks.encoder_average(truth[:, 0])[:, None].expand(-1, num_ws, -1)
    same = generator.synthesis(latent, cameras[:, 0]).image
    other = generator.synthesis(latent, cameras[:, 1]).image
    figures = {
        "held_out_same": float(psnr(same, truth[:, 0], mask[:, 0]).mean()),
        "held_out_other": float(psnr(other, truth[:, 1], mask[:, 1]).mean()),
    }
    z = torch.randn(count, networks.config.z_dim, generator=rng).to(device)
    frontal = camera_from_angles(0.0, 0.0).to(device).expand(count, -1)
    ws = generator.mapping(z, frontal, psi=0.7)
    rows = [truth[:, 0], same, truth[:, 1], other]
    for yaw in YAWS:
        camera = camera_from_angles(yaw, 0.0).to(device).expand(count, -1)
        rows.append(generator.synthesis(ws, camera).image)
    titles = ["photo", "encoded", "other view", "encoded", "sample -45", "sample 0", "sample 45"]
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [to_image(image) for row in rows for image in row.cpu()]
    sheet(images, columns=count, row_titles=titles, cell=160).save(path)
    return figures
