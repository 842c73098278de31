"""`my3dgen invert`: a new photo into a person's alpha-space, then new views."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from my3dgen.cli.verb import Verb

if TYPE_CHECKING:
    from my3dgen.alpha import Stray

SHOWN = 24  # photos: a sheet of more is not a picture any more


@dataclass(frozen=True, kw_only=True)
class Invert(Verb):
    """Find a photo among a person's appearances and show it from other sides.

    Without a person the prior's whole latent space is searched.

    my3dgen invert new.jpg --person me.safetensors -o new.png
    """

    photo: Positional[Path]
    """A photo, a folder of photos, or an album."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """Picture to write: photo, inversion, views, of up to 24 photos. Latents of all go beside it, in
    .latents.safetensors."""
    person: Path | None = None
    """Person file; without one, the prior alone."""
    prior: str | None = None
    """Name or folder of the prior; a person's own by default, else mini."""
    yaw: tuple[float, ...] = (-40.0, -20.0, 0.0, 20.0, 40.0)
    """Views, in degrees to the face's left (positive) or right."""
    space: Literal["w", "w+"] = "w"
    """One latent (or one set of weights) for all layers, or one a layer."""
    beta: float = 0.3
    """How far below 0 an anchor's weight may be."""
    tune: bool = False
    """Then bend the adapter, without a person one of rank 1, around each photo: much nearer from its side, in
    likeness a bit from others."""
    quality: Literal["draft", "standard", "max"] = "standard"
    """How long to search, and to tune."""
    seed: int = 0
    """Of everything random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to work."""

    def run(self) -> dict:
        """Write the picture and the latents; returns figures."""
        from my3dgen.apps.sheet import check_picture
        from my3dgen.cli.subject import load_subject
        from my3dgen.errors import UserError

        if not self.yaw:
            raise UserError("--yaw needs at least one angle")
        if not 0 <= self.beta <= 1:
            raise UserError(f"--beta {self.beta:g} is outside 0 to 1")
        check_picture(self.out)
        prior, person = load_subject(self.person, self.prior, self.device, self.seed)

        import torch

        from my3dgen.apps.sheet import save_image, sheet, to_image
        from my3dgen.cli.photos import album_at
        from my3dgen.evaluate.metrics import psnr
        from my3dgen.invert import QUALITIES, invert
        from my3dgen.lora import new_adapter
        from my3dgen.pivot import QUALITIES as PIVOTS
        from my3dgen.pivot import tune_on_photos
        from my3dgen.place import place
        from my3dgen.targets import targets_of
        from my3dgen.tensor_file import write_tensors

        self.out.parent.mkdir(parents=True, exist_ok=True)
        # not .album and .safetensors alone: beside me.png those may be the person's own
        album = album_at(self.photo, prior, self.out.with_suffix(".photos.album"))
        inverting = self.out.with_name(f"{self.out.name}.inverting")
        config = replace(QUALITIES[self.quality], space=self.space, seed=self.seed)
        if person is None:
            found = invert(prior, album, config, unfinished=inverting)
            alphas = adapter = stray = None
        else:
            found = place(prior, person, album, config, beta=self.beta, measure_stray=True)
            alphas, adapter, stray = found.alphas, person.adapter, found.stray

        device = prior.generator.w_avg.device
        config_of_prior = prior.config
        views = prior.generator.cameras(torch.tensor([math.radians(yaw) for yaw in self.yaw]))
        targets = targets_of(album, config_of_prior, device)
        adapters = [adapter] * len(album)
        if self.tune:
            start = adapter or new_adapter(prior.generator, 1, 1.0)
            adapters = tune_on_photos(prior, start, album, found, PIVOTS[self.quality])
        pictures, captions, scores = [], [], []
        for i, (name, own) in enumerate(zip(album.names, adapters, strict=True)):
            own = own and own.to(device)
            ws, camera = found.ws[i : i + 1].to(device), found.cameras[i : i + 1].to(device)
            cameras = torch.cat([camera, views]) if i < SHOWN else camera
            with torch.no_grad():
                planes = prior.generator.planes(ws, own)
                made = [prior.generator.render(planes, one, ws, own).image for one in cameras.split(1)]
            scores.append(float(psnr(made[0], targets.images[i : i + 1], targets.masks[i : i + 1])))
            if i >= SHOWN:
                continue
            pictures += [to_image(targets.images[i]), *map(to_image, made)]
            captions += [Path(name).stem, f"inversion, {scores[-1]:.1f} dB"]
            captions += [f"yaw {yaw:g}°" for yaw in self.yaw]
        save_image(sheet(pictures, captions, columns=2 + len(self.yaw)), self.out)
        latents = self.out.with_suffix(".latents.safetensors")
        tensors = {"ws": found.ws, "cameras": found.cameras}
        write_tensors(latents, tensors if alphas is None else tensors | {"alphas": alphas}, {})
        inverting.unlink(missing_ok=True)
        if not self.json:
            some = f"the first {SHOWN} of " if len(album) > SHOWN else ""
            print(f"{some}{len(album)} photo{'s' * (len(album) > 1)} -> {self.out}, latents in {latents}")
            for name, weight, away in zip(album.names, *figures_of(stray), strict=False):
                if weight > 0:
                    print(
                        f"{name}: without the bound the search would leave the person's alpha-space, weights "
                        f"to {-self.beta - weight:.2f} and {away:.2f} of the anchors' spread away"
                    )
        outside, distance = figures_of(stray)
        return {
            "image": str(self.out),
            "latents": str(latents),
            "photos": len(album),
            "psnr": [round(score, 2) for score in scores],
        } | ({"outside": outside, "distance": distance} if stray else {})

    def goes_on(self) -> bool:
        """A search in all of the prior's latent space does; one between anchors is short."""
        return self.person is None


def figures_of(stray: Stray | None) -> tuple[list[float], list[float]]:
    """How far each photo's best point lies below -beta, and from alpha-space in spreads of the anchors."""
    if stray is None:
        return [], []
    return [round(x, 4) for x in stray.weight.tolist()], [round(x, 4) for x in stray.distance.tolist()]
