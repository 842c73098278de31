"""Watching a training: figures as JSON lines, and a sheet to look at."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from my3dgen.apps.sheet import sheet, to_image
from my3dgen.cameras import camera_from_angles
from my3dgen.errors import UserError
from my3dgen.evaluate.metrics import psnr
from my3dgen.pretrain.folder import FolderPool
from my3dgen.pretrain.gan import AdversarialNetworks
from my3dgen.pretrain.networks import Networks
from my3dgen.pretrain.pool import Pool, draw_cameras
from my3dgen.progress import say
from my3dgen.synthetic.factors import HELD_OUT_SEEDS, sample_factors
from my3dgen.synthetic.render import render_views
from my3dgen.synthetic.scene import build_scenes

YAWS = (-0.785, 0.0, 0.785)


class Log:
    """Appends figures to a file and speaks them; with `board`, a folder, also for TensorBoard.

    Does nothing when the path is None. Raises UserError when TensorBoard is asked for but not installed.
    """

    def __init__(self, path: Path | None, board: Path | None = None):
        self.path, self.board = path, None
        if path is not None and board is not None:
            check_tensorboard()
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(board))

    def write(self, figures: Mapping[str, float | int]) -> None:
        """One JSON line; numbers are rounded to five significant digits."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({k: v if isinstance(v, int) else float(f"{v:.5g}") for k, v in figures.items()})
        with self.path.open("a") as file:
            file.write(line + "\n")
        say(line)
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name, value, int(figures.get("images", 0)))
            self.board.flush()

    def show(self, name: str, picture: Path, images: int) -> None:
        """A picture file for TensorBoard, after training on `images`."""
        if self.board is not None:
            with Image.open(picture) as opened:
                pixels = np.asarray(opened.convert("RGB"))
            self.board.add_image(name, pixels, images, dataformats="HWC")
            self.board.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self.board is not None:
            self.board.close()


def check_tensorboard() -> None:
    """Raise UserError if TensorBoard's package is absent."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UserError(
            "--tensorboard: the package tensorboard is absent; install it with: pip install 'my3dgen[train]'"
        ) from None


@torch.no_grad()
def look(networks: Networks, pool: Pool, path: Path, count: int) -> dict[str, float | int]:
    """`count` held-out heads through the encoder, and sampled ones, as a sheet; PSNR over head pixels.

    Figures are of W+, those named `_w` of W alone.
    """
    device, generator = networks.device, networks.generator_average
    seeds = list(HELD_OUT_SEEDS[:count])
    rng = torch.Generator("cpu").manual_seed(0)
    cameras = draw_cameras(count, 2, rng).to(device)
    views = render_views(build_scenes(sample_factors(seeds, device), device), cameras, size=pool.size)
    truth = views.rgb.float() / 127.5 - 1
    mask = (views.alpha[:, :, None].float() / 255 > 0.5).float()
    seen = networks.encoder_average.encode(truth[:, 0])
    in_w = seen.w[:, None].expand_as(seen.ws)
    planes = [generator.planes(in_w), generator.planes(seen.ws)]
    same, other = (generator.render(planes[1], cameras[:, k], seen.ws).image for k in (0, 1))
    plain = [generator.render(planes[0], cameras[:, k], in_w).image for k in (0, 1)]
    figures = {
        "held_out_same": float(psnr(same, truth[:, 0], mask[:, 0]).mean()),
        "held_out_other": float(psnr(other, truth[:, 1], mask[:, 1]).mean()),
        "held_out_same_w": float(psnr(plain[0], truth[:, 0], mask[:, 0]).mean()),
        "held_out_other_w": float(psnr(plain[1], truth[:, 1], mask[:, 1]).mean()),
    }
    z = torch.randn(count, networks.config.w_dim, generator=rng).to(device)
    mean = networks.latents.mean
    ws = (mean + 0.7 * (networks.latents.draw(z) - mean))[:, None].expand_as(seen.ws)
    rows = [truth[:, 0], same, truth[:, 1], other]
    for yaw in YAWS:
        camera = camera_from_angles(yaw, 0.0).to(device).expand(count, -1)
        rows.append(generator.synthesis(ws, camera).image)
    titles = ["photo", "encoded", "other view", "encoded", "sample -45", "sample 0", "sample 45"]
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [to_image(image) for row in rows for image in row.cpu()]
    sheet(images, columns=count, row_titles=titles, cell=160).save(path)
    return figures


@torch.no_grad()
def look_at_draws(networks: AdversarialNetworks, pool: FolderPool, path: Path, count: int) -> None:
    """A sheet of `count` pictures of the dataset, and of faces drawn from the prior, from three sides."""
    device, generator = networks.device, networks.generator_average
    config = networks.config
    rng = torch.Generator().manual_seed(0)
    real = pool.draw(count, rng if device.type == "cpu" else torch.Generator(device).manual_seed(0)).real
    z = torch.randn(count, config.z_dim, generator=rng).to(device)
    ws = generator.mapping(z, generator.cameras().expand(count, -1), psi=0.7)
    rows = [real]
    for yaw in YAWS:
        drawn = generator.synthesis(ws, generator.cameras(yaw).expand(count, -1))
        rows.append(drawn.image)
        if yaw == 0:
            rows.append(torch.nn.functional.interpolate(drawn.image_raw, size=real.shape[2:]))
    titles = ["dataset", "draw -45", "draw 0", "raw 0", "draw 45"]
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [to_image(image) for row in rows for image in row.cpu()]
    sheet(images, columns=count, row_titles=titles, cell=160).save(path)
