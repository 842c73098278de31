"""`my3dgen enhance`: fill a hole in a photo of a person, or enlarge a small one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from my3dgen.cli.verb import Verb

if TYPE_CHECKING:
    from PIL import Image

    from my3dgen.apps.enhance import Enhanced
    from my3dgen.apps.framed import Photo
    from my3dgen.invert import InvertConfig
    from my3dgen.person import Person
    from my3dgen.prior.store import Prior

SCALES = (2, 16)
LARGEST = 25_000_000  # pixels of a result: it is worked on in floating point


@dataclass(frozen=True, kw_only=True)
class Enhance(Verb):
    """Mend a photo with what a person's own photos tell: --mask fills a hole in it, --scale enlarges it.

    my3dgen enhance old.jpg --person me.safetensors --mask hole.png -o whole.png
    my3dgen enhance tiny.jpg --person me.safetensors --scale 4 -o large.png
    """

    photo: Positional[Path]
    """A photo, or an album, whose pictures are not searched for faces any more."""
    person: Path
    """Person file."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """Picture to write; of an album, a new folder of pictures."""
    mask: Path | None = None
    """Picture of the photo's size, white where it is to be filled; for an album perhaps a folder of them,
    named like its pictures."""
    scale: int | None = None
    """How many times larger, 2 to 16."""
    pull: bool = True
    """Give an enlarged photo the small one's colours and shading; without, they are the person's."""
    tune: bool = False
    """Bend the adapter around the rest of the photo before a hole is filled: closer, and twice the time."""
    prior: str | None = None
    """Name or folder of the prior; the person's own by default."""
    space: Literal["w", "w+"] = "w"
    """One set of anchors' weights for all layers, or one a layer."""
    beta: float = 0.03
    """How far below 0 an anchor's weight may be."""
    quality: Literal["draft", "standard", "max"] = "standard"
    """How long to search, and to tune."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to work."""

    def run(self) -> dict:
        """Write the picture or pictures; returns figures."""
        from my3dgen.apps.sheet import check_picture
        from my3dgen.cli.subject import load_subject
        from my3dgen.errors import UserError

        if (self.mask is None) == (self.scale is None):
            raise UserError("give --mask PICTURE to fill a hole, or --scale NUMBER to enlarge, one of them")
        low, high = SCALES
        if self.scale is not None and not low <= self.scale <= high:
            raise UserError(f"--scale {self.scale} is out of range; choose {low} to {high}")
        if self.tune and self.mask is None:
            raise UserError("--tune goes with --mask; a small photo has too little to tune on")
        if not 0 <= self.beta <= 1:
            raise UserError(f"--beta {self.beta:g} is outside 0 to 1")
        album = (self.photo / "dataset.json").is_file()
        if self.photo.is_dir() and not album:
            raise UserError(
                f"{self.photo} is a folder; name one photo, or an album made with my3dgen faces {self.photo}"
            )
        if not album:
            check_picture(self.out)
        elif self.out.is_file() or (self.out.is_dir() and any(self.out.iterdir())):
            raise UserError(
                f"{self.out} holds something already; choose a new folder for the album's pictures"
            )
        prior, person = load_subject(self.person, self.prior, self.device)
        assert person is not None

        from my3dgen.apps.sheet import save_image
        from my3dgen.evaluate.metrics import psnr

        images, scores, beyond = [], [], []
        for photo in photos_in(self.photo):
            done = self.filled(prior, person, photo) if self.mask else self.enlarged(prior, person, photo)
            images.append(save_image(done.image, self.out / photo.name if album else self.out))
            scores.append(float(psnr(done.rendering, done.shown, done.weights)))
            beyond.append(done.beyond)
            if not self.json:
                print(f"{photo.name} -> {images[-1]}; what the photo shows is met to {scores[-1]:.1f} dB")
                if done.beyond > 0.01:
                    print(f"{done.beyond:.0%} of the hole is too far from the face; it is bridged smoothly")
        return {
            "images": [str(image) for image in images],
            "photos": len(images),
            "psnr": [round(score, 2) for score in scores],
        } | ({"beyond": [round(share, 4) for share in beyond]} if self.mask else {})

    def filled(self, prior: Prior, person: Person, photo: Photo) -> Enhanced:
        """The photo with its hole filled. Raises UserError."""
        from my3dgen.apps.enhance import erase, fill, hole_of
        from my3dgen.apps.framed import frame
        from my3dgen.errors import PhotoError, UserError
        from my3dgen.pivot import QUALITIES as PIVOTS

        assert self.mask is not None
        mask = self.mask / Path(photo.name).with_suffix(".png") if self.mask.is_dir() else self.mask
        painted = opened(mask)
        try:
            hole = hole_of(painted, photo.image)
        except UserError as error:
            raise UserError(f"{mask} {error}") from error
        try:
            framed = frame(photo, erase(photo.image, hole), prior.config)
        except PhotoError as error:
            raise UserError(
                f"{self.photo}: {error}, with what is to be filled hidden; paint less of the mask white, or "
                "give an album of photos before the hole"
            ) from error
        tune = PIVOTS[self.quality] if self.tune else None
        try:
            return fill(prior, person, framed, hole, self.searching(), beta=self.beta, tune=tune)
        except UserError as error:
            raise UserError(f"{mask}: {error}") from error

    def enlarged(self, prior: Prior, person: Person, photo: Photo) -> Enhanced:
        """The photo enlarged. Raises UserError."""
        from PIL import Image

        from my3dgen.apps.enhance import enlarge
        from my3dgen.apps.framed import LEAST, frame
        from my3dgen.errors import PhotoError, UserError

        scale, small = self.scale or 1, photo.image
        width, height = small.width * scale, small.height * scale
        if width * height > LARGEST:
            raise UserError(
                f"{self.photo} would be {width} x {height} pixels; 25 million is the limit: "
                "choose a smaller --scale"
            )
        large = small.resize((width, height), Image.Resampling.BICUBIC)
        try:
            framed = frame(photo, large, prior.config, least=LEAST * scale)
        except PhotoError as error:
            raise UserError(
                f"{self.photo}, enlarged {scale} times: {error}; crop it to the face, or choose another"
            ) from error
        try:
            return enlarge(prior, person, small, framed, self.searching(), beta=self.beta, pull=self.pull)
        except UserError as error:
            raise UserError(f"{self.photo} {error}") from error

    def searching(self) -> InvertConfig:
        """How the person's appearance is searched."""
        from my3dgen.invert import QUALITIES

        return replace(QUALITIES[self.quality], space=self.space)


def photos_in(source: Path) -> list[Photo]:
    """A photo, or an album's pictures in their own size. Raises UserError."""
    from my3dgen.apps.framed import Photo
    from my3dgen.apps.sheet import to_image
    from my3dgen.faces.album import Album, read_album

    if source.is_file() or not source.exists():
        return [Photo(opened(source), source.name)]
    album = read_album(source)
    parts = zip(album.images.split(1), album.cameras.split(1), range(len(album)), album.names, strict=True)
    return [
        Photo(
            to_image(image),
            name,
            Album(image, camera, None if album.masks is None else album.masks[i : i + 1], (name,)),
        )
        for image, camera, i, name in parts
    ]


def opened(path: Path) -> Image.Image:
    """A picture, upright and in RGB. Raises UserError."""
    from my3dgen.errors import PhotoError, UserError
    from my3dgen.faces.photos import open_photo

    if not path.is_file():
        raise UserError(f"{path} does not exist; name a picture")
    try:
        photo = open_photo(path)
    except PhotoError as error:
        raise UserError(f"{path}: {error}") from error
    if photo.width * photo.height > LARGEST:
        raise UserError(f"{path} has more than 25 million pixels; make it smaller")
    return photo
