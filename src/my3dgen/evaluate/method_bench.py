"""The work of the benchmark of methods, piece by piece: photos, anchors, models and rows of one person.

Every finished piece leaves a stamp in the person's folder (`my3dgen.evaluate.stages`), so a stopped benchmark
goes on, and pieces may be done by different processes as long as none needs an unfinished one.

OUT/people/SEED/
  album/, taken/, views.safetensors     what the person looks like
  changing/                             the same of photos between which the person changes
  anchors-50-w.safetensors              photos inverted by the prior
  lora-r1-50-w.safetensors              person files
  pictures/NAME.views.jpg ...           a row's pictures, side by side
  stages/                               stamps; those of rows hold their figures
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from my3dgen import __version__
from my3dgen.anchors import Anchors
from my3dgen.apps.sheet import save_image, to_image
from my3dgen.evaluate.making import find_anchors, read_anchors
from my3dgen.evaluate.method_learn import (
    Learned,
    forget_peak_memory,
    in_int8,
    learn,
    learn_adapter,
    peak_memory_mb,
    with_adapter,
)
from my3dgen.evaluate.method_people import (
    ALBUM_CHANGES,
    CHANGES,
    Case,
    make_photos,
    make_views,
    read_case,
    read_learn,
)
from my3dgen.evaluate.method_protocol import BORROWING, CHANGING, LEARNED, RANKED, Protocol, Row
from my3dgen.evaluate.method_shape import depth_error, floaters
from my3dgen.evaluate.method_synthesis import between, embeddings, synthesise
from my3dgen.evaluate.metrics import Score, load_judge, mean_score
from my3dgen.evaluate.protocol import Seen, held_out, novel_views, select
from my3dgen.evaluate.stages import Stages
from my3dgen.evaluate.true_views import PARTS
from my3dgen.faces.album import Album
from my3dgen.prior.store import ENCODER, Prior, read_sums
from my3dgen.rates import FACTORS
from my3dgen.targets import targets_of

STAGES = "stages"
PHOTOS, ALBUM_CHANGING = "photos", "changing"
"""Stamps of a person's two albums, the second a folder, too."""
SHOWN = 7
"""Samples that are kept as pictures."""


@dataclass(frozen=True, eq=False)
class Bench:
    """A prior, a protocol, and a folder where the work is kept."""

    prior: Prior
    protocol: Protocol
    out: Path
    seed: int

    def folder(self, person: int) -> Path:
        """Where a person's files are."""
        return folder_of(self.out, person)

    def stages(self, person: int) -> Stages:
        """The stamps of a person's pieces."""
        return Stages(self.folder(person) / STAGES, talks=False)

    def person(self, seed: int, stages: Stages | None = None) -> Case:
        """Photos and true views, made if they are not there."""
        stages, folder, asked = stages or self.stages(seed), self.folder(seed), self.protocol
        question = self.album_question()
        photos = stages.run(PHOTOS, question, lambda: make_photos(seed, asked, self.prior, folder))
        views = stages.run(
            "views",
            [asked.yaws, asked.moments, PARTS],
            lambda: make_views(photos, asked, self.prior, folder),
            (PHOTOS,),
        )
        return read_case(seed, photos, views, folder)

    def album_question(self) -> dict[str, Any]:
        """What albums depend on, besides the person."""
        return {
            "my3dgen": __version__,
            "prior": self.prior.sha256,
            "encoder": read_sums(self.prior.folder).get(ENCODER),
            "device": self.prior.generator.w_avg.device.type,
            "album": [self.protocol.album, self.protocol.photo_size],
        }

    def learned_from(self, row: Row, case: Case, stages: Stages) -> Album:
        """The photos that a row learns from, made if they are not there."""
        if row.method not in CHANGING:
            return select(case.learn, case.learn.names[: row.photos])
        folder = self.folder(row.person) / ALBUM_CHANGING
        made = stages.run(
            photos_name(row),
            self.album_question() | {"changes": ALBUM_CHANGES},
            lambda: make_photos(row.person, self.protocol, self.prior, folder, CHANGES),
        )
        learn = read_learn(row.person, made, folder)
        return select(learn, learn.names[: row.photos])

    def anchors(self, row: Row, case: Case, stages: Stages) -> tuple[Album, Anchors]:
        """The photos a row learns from and their latents, found if they are not there."""
        album = self.learned_from(row, case, stages)
        path = self.folder(row.person) / f"{anchors_name(row)}.safetensors"
        config = self.protocol.inversion.config(row.anchors, self.seed)
        stages.run(
            anchors_name(row),
            asdict(config),
            lambda: find_anchors(self.prior, album, config, path),
            (photos_name(row),),
        )
        return album, read_anchors(path, album.names)

    def model(self, row: Row, case: Case, stages: Stages) -> tuple[Path, dict[str, float]]:
        """A row's person file, learned if it is not there, and what that took."""
        path = self.folder(row.person) / f"{row.name}.safetensors"
        album, anchors = self.anchors(row, case, stages)
        made = stages.run(
            model_name(row),
            [asdict(row.training.personalization(row.rank, self.seed)) if row.training else None, FACTORS],
            lambda: learn_adapter(self.prior, row, album, anchors, self.seed, path),
            (anchors_name(row),),
        )
        return path, made

    def prepare_album(self, row: Row) -> None:
        """Make the photos that `row` learns from."""
        stages = self.stages(row.person)
        self.learned_from(row, self.person(row.person, stages), stages)

    def prepare_anchors(self, row: Row) -> None:
        """Find what `row` needs to begin."""
        stages = self.stages(row.person)
        self.anchors(row, self.person(row.person, stages), stages)

    def prepare_model(self, row: Row) -> None:
        """Learn a person file that another row needs."""
        stages = self.stages(row.person)
        self.model(row, self.person(row.person, stages), stages)

    def row(self, row: Row) -> dict[str, Any]:
        """A row's figures, measured if they are not there."""
        stages = self.stages(row.person)
        case = self.person(row.person, stages)
        needs, asked = ["views"], self.protocol
        question: list[Any] = [
            *(asdict(part) if part else None for part in (row.training, row.pivoting)),
            asdict(asked.inversion),
            [asked.samples, asked.sample_yaw, asked.interpolations, asked.interpolation_steps],
            self.seed,
            FACTORS if row.pivoting and row.method in RANKED else None,
        ]
        album, anchors, path = None, None, None
        took = {"seconds": 0.0, "peak_memory_mb": 0.0}
        if row.photos:
            album, anchors = self.anchors(row, case, stages)
            needs.append(anchors_name(row))
        if row.method in LEARNED:
            path, took = self.model(row, case, stages)
            needs.append(model_name(row))
        if row.method in BORROWING:
            other = lender(row, asked)
            others = self.stages(other.person)
            path, took = self.model(other, self.person(other.person, others), others)
            question.append(others.stamps[model_name(other)]["asked"])

        def work() -> dict[str, Any]:
            device = self.prior.generator.w_avg.device
            forget_peak_memory(device)
            if path is not None:
                file = path
                if row.method == "lora-int8":
                    file = in_int8(path, self.folder(row.person) / f"{row.name}.safetensors")
                own = anchors if row.method == "control" else None
                learned = with_adapter(self.prior, asked, row, file, own, took["seconds"], self.seed)
            else:
                photos = case.test if album is None else album
                learned = learn(self.prior, asked, row, photos, anchors, self.seed)
            figures = self.measure(row, case, learned)
            if row.method in CHANGING and album is not None:
                shown = targets_of(select(album, album.names[:SHOWN]), self.prior.config).images
                self.keep(row.person, f"{row.name}.learned", shown)
            inverting = stages.stamps[anchors_name(row)]["seconds"] if row.photos else 0.0
            return figures | {
                "photos_used": 0 if album is None else len(album),
                "parameters": learned.parameters,
                "bytes": learned.bytes,
                "seconds": round(learned.seconds + inverting, 1),
                "peak_memory_mb": round(max(took["peak_memory_mb"], peak_memory_mb(device))),
            }

        return row.key() | stages.run(row.name, question, work, tuple(needs))

    def measure(self, row: Row, case: Case, learned: Learned) -> dict[str, Any]:
        """All that is asked of a method that has learned a person."""
        asked, device = self.protocol, self.prior.generator.w_avg.device
        judge, method = load_judge(device), learned.method
        started = time.perf_counter()
        photos = held_out(method, case.test, judge)
        figures: dict[str, Any] = {
            "seconds_photo": round((time.perf_counter() - started) / len(case.test), 2),
        }
        seen = novel_views(method, case.moments, judge)
        figures |= prefixed("heldout", mean_score(photos.scores).as_dict())
        figures |= view_figures(case, seen) | shape_figures(self.prior, case, seen)
        pictures = {"photos": photos.images[:SHOWN], "views": seen[0].images}
        synthesis: dict[str, float | None] = dict.fromkeys(
            (
                *("samples_identity", "samples_cosine", "samples_diversity"),
                *("interpolation_mean", "interpolation_least"),
            )
        )
        if learned.anchors is not None:
            known = torch.cat(
                [embeddings(judge, album, self.prior.config, device) for album in (case.learn, case.test)]
            )
            drawn = synthesise(
                method,
                learned.anchors,
                known,
                judge,
                count=asked.samples,
                yaw=asked.sample_yaw,
                seed=self.seed,
            )
            pictures["samples"] = drawn.images[:SHOWN]
            synthesis |= prefixed("samples", drawn.figures)
            way = between(
                method,
                learned.anchors,
                known,
                judge,
                pairs=asked.interpolations,
                steps=asked.interpolation_steps,
                seed=self.seed,
            )
            if way is not None:
                pictures["interpolation"] = way.images[: asked.interpolation_steps]
                synthesis |= prefixed("interpolation", way.figures)
        for name, images in pictures.items():
            self.keep(row.person, f"{row.name}.{name}", images)
        truth = {"photos": case.test, "views": case.moments[0].album}
        for name, album in truth.items():
            shown = targets_of(album, self.prior.config).images
            self.keep(row.person, f"truth.{name}", shown[:SHOWN] if name == "photos" else shown)
        return figures | synthesis

    def keep(self, person: int, name: str, images: Tensor) -> None:
        """Save pictures side by side for the report's sheets."""
        page = strip([to_image(image) for image in images])
        save_image(page, pictures_of(self.out, person) / f"{name}.jpg")


def folder_of(out: Path, person: int) -> Path:
    """Where a person's files are."""
    return out / "people" / str(person)


def pictures_of(out: Path, person: int) -> Path:
    """Where the pictures of a person's rows are."""
    return folder_of(out, person) / "pictures"


def stamp_of(out: Path, row: Row) -> Path:
    """Where the stamp of a measured row is."""
    return folder_of(out, row.person) / STAGES / f"{row.name}.json"


def anchors_name(row: Row) -> str:
    """The stamp and file of a row's anchors."""
    return f"anchors-{row.photos}-{row.anchors}" + ("-changing" if row.method in CHANGING else "")


def photos_name(row: Row) -> str:
    """The stamp of the album a row learns from."""
    return ALBUM_CHANGING if row.method in CHANGING else PHOTOS


def model_name(row: Row) -> str:
    """The stamp of a row's person file."""
    return f"model-{row.name}"


def lender(row: Row, protocol: Protocol) -> Row:
    """The row whose adapter another one borrows: the person's own, or for a control the next person's."""
    person = protocol.after(row.person) if row.method == "control" else row.person
    return replace(row, person=person, method="lora", pivoting=None, variant="")


def prefixed(part: str, figures: dict[str, float]) -> dict[str, float]:
    """Figures under the name of their part, rounded to what they can carry."""
    return {f"{part}_{name}": round(value, 4) for name, value in figures.items()}


def view_figures(case: Case, seen: Sequence[Seen]) -> dict[str, Any]:
    """Scores of the inverted view (`view0_*`), of turns to both sides, of all unseen views (`views_*`), and
    `by_yaw`."""
    by_yaw: dict[int, list[Score]] = {}
    for moment, one in zip(case.moments, seen, strict=True):
        for yaw, score in zip(moment.yaws, one.scores, strict=True):
            by_yaw.setdefault(yaw, []).append(score)
    figures: dict[str, Any] = {}
    for turn in sorted({abs(yaw) for yaw in by_yaw}):
        sides = [score for yaw, scores in by_yaw.items() if abs(yaw) == turn for score in scores]
        figures |= prefixed(f"view{turn}", mean_score(sides).as_dict())
    unseen = [score for yaw, scores in by_yaw.items() if yaw for score in scores]
    figures |= prefixed("views", mean_score(unseen).as_dict())
    return figures | {
        "by_yaw": {str(yaw): mean_score(scores).as_dict() for yaw, scores in sorted(by_yaw.items())}
    }


def shape_figures(prior: Prior, case: Case, seen: Sequence[Seen]) -> dict[str, float | None]:
    """Floaters and depth of all views, the inverted one among them."""
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for moment, one in zip(case.moments, seen, strict=True):
        device = one.opacity.device
        masks = targets_of(moment.album, prior.config, device).masks
        # the scene in the scale of the latent's world (`seen_from`)
        truth = (moment.depth * (moment.exact[:, 16] / one.cameras[:, 16].cpu())[:, None, None]).to(device)
        error, missed = depth_error(one.depth, one.opacity, truth, masks)
        columns.append((floaters(one.opacity, masks), error, missed))
    names = ("floaters", "depth_error", "depth_missed")
    values = (torch.cat(column) for column in zip(*columns, strict=True))
    return {name: finite(float(value.nanmean())) for name, value in zip(names, values, strict=True)}


def finite(value: float) -> float | None:
    """The value rounded; None, as JSON has no NaN, where nothing was measured."""
    return round(value, 5) if math.isfinite(value) else None


def strip(pictures: Sequence[Image.Image]) -> Image.Image:
    """Square pictures of one size side by side."""
    side = pictures[0].height
    page = Image.new("RGB", (side * len(pictures), side), "white")
    for place, picture in enumerate(pictures):
        page.paste(picture, (place * side, 0))
    return page
