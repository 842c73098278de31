"""A person file judged by photos it has not seen: found in alpha-space, rendered, compared."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from my3dgen.apps.sheet import sheet, to_image
from my3dgen.evaluate.methods import factor_for, prior_alone, times
from my3dgen.evaluate.metrics import IDENTITY_NETWORK, PERCEPTUAL_NETWORK, Score, load_judge, mean_score
from my3dgen.evaluate.protocol import held_out, reproduce
from my3dgen.faces.album import Album
from my3dgen.invert import InvertConfig
from my3dgen.person import Person
from my3dgen.place import PLACE_FACTOR, place
from my3dgen.prior.store import Prior
from my3dgen.targets import targets_of

SHOWN = 8
"""Photos on the sheet."""
CELL = 192


@dataclass(frozen=True, eq=False)
class Examined:
    """What came out: figures as JSON values, and a sheet of photos above their renderings."""

    figures: dict[str, Any]
    sheet: Image.Image


def evaluate_person(
    prior: Prior,
    person: Person,
    album: Album,
    config: InvertConfig,
    *,
    beta: float = 0.3,
    compare: bool = False,
) -> Examined:
    """Judge a person by an album that was not learned from, in the hull dilated by `beta`.

    Beside the scores, the figures tell where in alpha-space photos were found: `stray_weight` and
    `stray_distance` as in `my3dgen.alpha.Stray`, both 0 where a photo lies within the hull, and `mixed`, of
    how many anchors it is mixed ((sum of |weights|)^2 / sum of squared weights). With `compare` the prior
    alone is put to the same test. Raises PriorMismatchError for a person of another prior, UserError as
    `place`.
    """
    device = prior.generator.w_avg.device
    judge, wanted = load_judge(device), targets_of(album, prior.config, device)
    more = times(config, factor_for(album) // PLACE_FACTOR)  # `place` multiplies by the rest itself
    found = place(prior, person, album, more, beta=beta, measure_stray=True)
    assert found.stray is not None
    ws, cameras = found.ws.to(device), found.cameras.to(device)
    images = reproduce(prior.generator, person.adapter.to(device), ws, cameras)
    scores = judge.score(images, wanted.images, wanted.masks, cameras)
    mixed = (found.alphas.abs().sum(2).square() / found.alphas.square().sum(2)).mean(1)
    hull = {"stray_weight": found.stray.weight, "stray_distance": found.stray.distance, "mixed": mixed}
    figures: dict[str, Any] = {
        "photos": len(album),
        "beta": beta,
        **mean_score(scores).as_dict(),
        **{name: round(float(values.mean()), 4) for name, values in hull.items()},
        "inside": round(float((found.stray.weight == 0).float().mean()), 4),
        "by_photo": [
            {"photo": name}
            | score.as_dict()
            | {key: round(float(values[row]), 4) for key, values in hull.items()}
            for row, (name, score) in enumerate(zip(album.names, scores, strict=True))
        ],
        "perceptual_network": PERCEPTUAL_NETWORK,
        "identity_network": IDENTITY_NETWORK,
    }
    rows = [("photos", wanted.images, None), ("person", images, scores)]
    if compare:
        alone = held_out(prior_alone(prior, replace(config, space="w")), album, judge)
        figures["prior"] = mean_score(alone.scores).as_dict()
        rows.append(("prior alone", alone.images, alone.scores))
    shown = [i * len(album) // min(SHOWN, len(album)) for i in range(min(SHOWN, len(album)))]
    page = sheet(
        [to_image(pictures[i]) for _, pictures, _ in rows for i in shown],
        [caption(album.names[i], of and of[i]) for _, _, of in rows for i in shown],
        columns=len(shown),
        row_titles=[title for title, _, _ in rows],
        cell=CELL,
    )
    return Examined(figures, page)


def caption(name: str, score: Score | None) -> str:
    """A photo's name, or how its rendering scores."""
    if score is None:
        return Path(name).stem
    return f"{score.psnr:.1f} dB, identity {score.identity:.2f}"
