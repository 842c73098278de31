"""The whole path on the bundled album, then what it was worth: stages that can be stopped and continued.

photos -> album -> anchors -> person file -> held-out photos and unseen views by every method -> pictures,
report.html and report.json. The album's person is synthetic, so the truth is known from every side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import my3dgen
from my3dgen.allocator import keep_freed_memory
from my3dgen.apps.sheet import save_image, to_image
from my3dgen.errors import UserError
from my3dgen.evaluate.gallery import draw_all
from my3dgen.evaluate.making import (
    Lesson,
    Split,
    find_anchors,
    in_full,
    learn_in_full,
    learn_person,
    nearest_to_front,
    read_anchors,
    read_generator,
    read_split,
    to_album,
)
from my3dgen.evaluate.methods import Method, personalised, prior_alone, tuned_in_full
from my3dgen.evaluate.metrics import IDENTITY_NETWORK, PERCEPTUAL_NETWORK, load_judge, mean_score
from my3dgen.evaluate.notes import notes_on
from my3dgen.evaluate.protocol import Reproduction, held_out, novel_views, select
from my3dgen.evaluate.report import write_page
from my3dgen.evaluate.stages import Stages, fingerprint, write_json
from my3dgen.evaluate.true_views import PARTS, Moment, make_moments, read_moments
from my3dgen.faces.album import Album, read_album
from my3dgen.invert import QUALITIES as INVERSIONS
from my3dgen.invert import Quality
from my3dgen.person import Person
from my3dgen.personalize import QUALITIES as PERSONALIZATIONS
from my3dgen.prior.store import Prior, load_prior, read_sums
from my3dgen.rates import FACTORS
from my3dgen.synthetic.album import Truth, read_truth

BUNDLED = Path(my3dgen.__file__).parent / "weights" / "demo"
YAWS = (-40, -20, 0, 20, 40)
"""Degrees of the views, of which the one at 0 is inverted and the others are unseen."""
MOMENTS = 3
"""How many held-out photos are seen from all these yaws: one expression alone says little."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What the demo runs on and how long it takes."""

    out: Path
    album: Path = BUNDLED
    """Folder with photos/, split.json and truth.json, as `my3dgen synthetic album` writes it."""
    prior: str = "mini"
    quality: Quality = "standard"
    compare: bool = False
    """Tune all weights, too, as a third method."""


def run_demo(config: DemoConfig) -> dict[str, Any]:
    """Run every stage not done before; return the report that report.json holds.

    Raises UserError for an album that is not there or of which too few photos are usable.
    """
    keep_freed_memory()
    out, quality = config.out, config.quality
    prior, truth = load_prior(config.prior), read_truth(config.album)
    whole = {
        "my3dgen": my3dgen.__version__,
        "prior": read_sums(prior.folder),
        "album": fingerprint_of(config.album),
    }
    out.mkdir(parents=True, exist_ok=True)
    stages = Stages(out / "stages")

    faces = stages.run("faces", whole, lambda: to_album(config.album / "photos", out / "album", prior))
    album, split = read_album(out / "album"), read_split(config.album / "split.json", faces["names"])
    learn, test = select(album, split.learn), select(album, split.held_out)

    moments = [faces["files"][name] for name in nearest_to_front(test, MOMENTS)]
    sides = out / "views.safetensors"
    asked = [moments, YAWS, PARTS]
    shot = stages.run("true views", asked, lambda: all_views(truth, moments, prior, sides), ("faces",))
    views = read_moments(shot, sides)

    kept, inverting = out / "anchors.safetensors", INVERSIONS[quality]
    stages.run("anchors", asdict(inverting), lambda: find_anchors(prior, learn, inverting, kept), ("faces",))
    anchors = read_anchors(kept, learn.names)

    file = out / "person.safetensors"
    lesson = Lesson(prior, learn, anchors, quality)
    settings = [asdict(PERSONALIZATIONS[quality]), FACTORS]
    stages.run("personalize", settings, lambda: learn_person(lesson, file), ("anchors",))
    person = Person.load(file, prior)

    methods = [prior_alone(prior, inverting), personalised(prior, person, inverting)]
    if config.compare:
        full = out / "full.safetensors"
        stages.run("tune all", asdict(in_full(quality)), lambda: learn_in_full(lesson, full), ("anchors",))
        methods.append(tuned_in_full(prior, read_generator(prior, full), person.anchors, inverting))
    scores = {method.name: examine(method, test, views, out, stages, quality) for method in methods}

    pictures = stages.run(
        "pictures",
        [quality, list(scores), sorted(prior.directions)],
        lambda: draw_all(prior, person, learn, test, views[0].album, YAWS, list(scores), quality, out),
        ("personalize", "true views"),
    )
    report = assemble(config, prior, person, faces, split, scores, pictures, stages, file)
    write_json(out / "report.json", report)
    write_page(report, out / "report.html")
    return report


def fingerprint_of(album: Path) -> str:
    """A short name for the photos, their split and their truth. Raises UserError if there are none."""
    photos = sorted((album / "photos").glob("*")) if (album / "photos").is_dir() else []
    if not photos:
        raise UserError(f"{album} holds no photos/; my3dgen synthetic album makes such a folder")
    told = [(album / name).read_text(encoding="utf-8") for name in ("split.json", "truth.json")]
    return fingerprint([[path.name, path.stat().st_size] for path in photos] + told)


def all_views(truth: Truth, photos: Sequence[str], prior: Prior, path: Path) -> dict[str, Any]:
    """`make_moments` of all these photos. Raises UserError if a view is not usable."""
    made = make_moments(truth, photos, YAWS, len(photos), prior, path)
    if made["dropped"]:
        raise UserError(f"the true view {made['dropped'][0]} is not usable")
    return made


def examine(
    method: Method, test: Album, views: Sequence[Moment], out: Path, stages: Stages, quality: Quality
) -> dict[str, Any]:
    """Both questions of `my3dgen.evaluate.protocol`, put to one method: figures by part."""
    judge = load_judge()
    learned_by = {"prior": ("faces",), "lora": ("personalize",), "full": ("tune all",)}[method.name]

    def on_photos() -> dict[str, Any]:
        made = held_out(method, test, judge)
        keep_pictures(made, test, out / "compared" / "heldout" / method.name)
        by_photo = {name: score.as_dict() for name, score in zip(test.names, made.scores, strict=True)}
        return mean_score(made.scores).as_dict() | {"by_photo": by_photo}

    def on_views() -> dict[str, Any]:
        made = novel_views(method, views, judge)
        for moment, pictures in zip(views, made, strict=True):
            keep_pictures(pictures, moment.album, out / "compared" / "views" / method.name)
        by_yaw = [mean_score(scores) for scores in zip(*(one.scores for one in made), strict=True)]
        unseen = [score for place, score in enumerate(by_yaw) if place != views[0].source]
        return mean_score(unseen).as_dict() | {"by_yaw": [score.as_dict() for score in by_yaw]}

    return {
        "latent": method.latent,
        "heldout": stages.run(f"held-out photos, {method.name}", quality, on_photos, learned_by),
        "views": stages.run(f"unseen views, {method.name}", quality, on_views, (*learned_by, "true views")),
    }


def keep_pictures(made: Reproduction, album: Album, folder: Path) -> None:
    """Save a method's pictures, for the sheets and for anyone who wants to look closely."""
    for name, image in zip(album.names, made.images.split(1), strict=True):
        save_image(to_image(image), folder / name)


def assemble(
    config: DemoConfig,
    prior: Prior,
    person: Person,
    faces: Mapping[str, Any],
    split: Split,
    scores: Mapping[str, dict[str, Any]],
    pictures: Mapping[str, str],
    stages: Stages,
    file: Path,
) -> dict[str, Any]:
    """The report as JSON values."""
    facts = person.facts()
    meshes = {name: pictures[name] for name in ("glb", "ply")}
    report = {
        "my3dgen": my3dgen.__version__,
        "prior": {
            "name": prior.name,
            "sha256": prior.sha256,
            "parameters": prior.generator.parameter_count,
            "directions": sorted(prior.directions),
        },
        "quality": config.quality,
        "rank": facts["rank"],
        "album": {
            "name": "the bundled album" if config.album == BUNDLED else config.album.name,
            "photos": faces["photos"],
            "learned": len(split.learn),
            "held_out": len(split.held_out),
            "dropped": faces["dropped"],
        },
        "machine": {"device": "cpu", "threads": torch.get_num_threads(), "torch": torch.__version__},
        "methods": dict(scores),
        "views": {
            "yaw_degrees": list(YAWS),
            "source_yaw_degrees": 0,
            "photos": [moment["photo"] for moment in stages.stamps["true views"]["answer"]["moments"]],
        },
        "perceptual_network": PERCEPTUAL_NETWORK,
        "identity_network": IDENTITY_NETWORK,
        "person_file": file.name,
        "person_file_bytes": file.stat().st_size,
        "trained_parameters": facts["trainable_parameters"],
        "seconds": stages.seconds(),
        "peak_rss_mb": stages.peak_rss_mb(),
        "pictures": {name: path for name, path in pictures.items() if name not in meshes},
        "files": meshes,
    }
    return report | {"notes": notes_on(report)}
