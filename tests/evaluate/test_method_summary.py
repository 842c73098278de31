import pytest

from my3dgen.evaluate.method_claims import CLAIMS, compare
from my3dgen.evaluate.method_report import compared, kept_of_full
from my3dgen.evaluate.method_sheets import few_and_many
from my3dgen.evaluate.method_summary import intervals, reference_of, settled, summarise


def row(person, method, rank=0, photos=50, anchors="w", **figures):
    return {"person": person, "method": method, "rank": rank, "photos": photos, "anchors": anchors} | figures


def test_differences_are_paired():
    rows = [row(p, "lora", 1, views_psnr=10.0 * p, by_yaw={}) for p in range(6)]
    rows += [row(p, "full", views_psnr=10.0 * p - 1, samples_identity=None) for p in range(6)]
    lora, full = summarise(rows)
    assert lora["differences"] is None and full["against"] == ["lora", 1, 50, "w"]
    # people differ a lot, methods by exactly 1
    assert full["differences"]["views_psnr"] == {"mean": -1, "low": -1, "high": -1, "people": 6}
    spread = full["figures"]["views_psnr"]
    assert spread["low"] < 15 < spread["mean"] + 1 < spread["high"]
    assert set(full["figures"]) == {"views_psnr"}  # neither the key nor what does not apply


def test_failed_rows_count_nowhere():
    rows = [row(1, "lora", 1, error="diverged"), row(2, "lora", 1, bytes=5), row(1, "full", bytes=9)]
    lora, full = summarise(rows)
    assert lora["people"] == 1 and lora["figures"]["bytes"] == {
        "mean": 5,
        "low": None,
        "high": None,
        "people": 1,
    }
    assert full["differences"] == {}  # nobody has both


def test_what_few_people_were_learned_by_stands_beside_nothing():
    rows = [row(p, "lora", 1) for p in range(4)] + [row(p, "full") for p in range(2)]
    few = [row(0, "pti"), row(1, "pti", error="diverged")]
    assert settled(few + rows) == rows and settled(few) == few and settled([]) == []


def test_the_interval_is_that_of_the_mean():
    values = {p: {"x": float(p % 2)} for p in range(400)}
    found = intervals(values, 0)["x"]
    # a mean of 400 coins has a standard error of 0.025
    assert found["low"] == pytest.approx(0.451, abs=0.01) and found["high"] == pytest.approx(0.549, abs=0.01)
    assert intervals(values, 0) == intervals(values, 0)


def test_the_reference_has_the_same_photos_if_it_can():
    groups = dict.fromkeys([("lora", 1, 5, "w"), ("lora", 1, 50, "w"), ("lora", 1, 50, "w+")])
    assert reference_of(("full", 0, 5, "w"), groups) == ("lora", 1, 5, "w")
    assert reference_of(("full", 0, 50, "w+"), groups) == ("lora", 1, 50, "w+")
    assert reference_of(("pti", 0, 0, "w"), groups) == ("lora", 1, 50, "w")
    assert reference_of(("lora", 1, 5, "w"), groups) == ("lora", 1, 50, "w")
    assert reference_of(("lora", 1, 50, "w"), groups) is reference_of(("lora", 1, 50, "w+"), groups) is None
    assert reference_of(("full", 0, 5, "w"), {}) is None
    groups = dict.fromkeys([("full", 0, 5, "w"), ("full", 0, 50, "w")])
    assert reference_of(("lora", 4, 5, "w"), groups, "full") == ("full", 0, 5, "w")
    groups = dict.fromkeys([("lora", 1, 50, "w"), ("lora", 1, 50, "w+")])
    assert reference_of(("prior-w+", 0, 50, "w+"), groups) == ("lora", 1, 50, "w")


@pytest.mark.parametrize(
    ("figure", "step", "people", "verdict"),
    [
        ("views_identity", -0.1, 6, "agrees"),  # full tuning is worse
        ("views_identity", +0.1, 6, "does not agree"),
        ("floaters", +0.1, 6, "agrees"),  # less is better
        ("floaters", -0.1, 6, "does not agree"),
        ("views_identity", -0.1, 4, "open"),  # too few people
        ("views_identity", 0.0, 6, "open"),
    ],
)
def test_verdicts_on_the_claim_that_full_tuning_overfits(figure, step, people, verdict):
    rows = [row(p, "lora", 1, **{figure: 0.5 + 0.01 * p}) for p in range(people)]
    rows += [row(p, "full", **{figure: 0.5 + 0.01 * p + step}) for p in range(people)]
    claim = next(claim for claim in CLAIMS if claim.others == ("full",) and figure in claim.figures)
    (found,) = compare(summarise(rows), claim)
    assert found.verdict == verdict
    assert found.difference == pytest.approx(-step) and found.ours - found.theirs == pytest.approx(-step)


def test_a_claim_about_photos_is_compared_at_each_number_of_them():
    rows = [
        row(p, method, rank, photos, views_psnr=20.0)
        for p in range(5)
        for method, rank in (("lora", 1), ("full", 0))
        for photos in (1, 50)
    ]
    claim = next(claim for claim in CLAIMS if claim.compares == "same photos")
    assert sorted(c.photos for c in compare(summarise(rows), claim)) == [(1, 1), (50, 50)]


def test_what_is_bent_around_a_photo_is_compared_with_what_else_is():
    rows = [
        row(p, method, rank, 50, view30_identity=value + 0.01 * p)
        for p in range(6)
        for method, rank, value in (("lora-pti", 1, 0.9), ("lora", 1, 0.8), ("lora", 4, 0.85))
    ]
    rows += [row(p, "pti", 0, 0, view30_identity=0.7 + 0.01 * p) for p in range(6)]
    rows += [row(p, "full-pti", 0, 50, view30_identity=0.95 + 0.01 * p) for p in range(6)]
    claim = next(claim for claim in CLAIMS if claim.ours == "lora-pti")
    found = {c.other: c for c in compare(summarise(rows), claim)}
    assert set(found) == {"pti", "lora", "full-pti"} and found["lora"].theirs == pytest.approx(0.825)
    others = ("pti", "lora", "full-pti")
    assert [found[other].difference for other in others] == pytest.approx([0.2, 0.1, -0.05])
    assert [found[other].verdict for other in others] == ["agrees", "agrees", "does not agree"]
    assert found["pti"].adapter == "lora-pti"


def test_what_learned_from_changing_photos_is_compared_with_all_weights_that_did():
    rows = [
        row(p, method, rank, 50, view30_identity=value + 0.01 * p)
        for p in range(6)
        for method, rank, value in (("lora-changing", 1, 0.8), ("full-changing", 0, 0.7), ("full", 0, 0.9))
    ]
    claim = next(claim for claim in CLAIMS if claim.ours == "lora-changing")
    (found,) = compare(summarise(rows), claim)
    assert found.other == "full-changing" and found.difference == pytest.approx(0.1)
    assert found.verdict == "agrees"


def test_adapters_are_set_against_all_weights_on_the_same_photos():
    costs = {"parameters": 100.0, "bytes": 60.0, "heldout_identity": 0.8, "view30_psnr": 20.0}
    ours = costs | {"parameters": 2.0, "bytes": 3.0, "heldout_identity": 0.76}
    rows = [row(p, "full", anchors=space, **costs) for p in range(6) for space in ("w", "w+")]
    rows += [row(p, "lora", 1, **ours | {"view30_psnr": 19.5 + p % 2}) for p in range(6)]
    # other photos, and somebody whom all weights have not learned
    rows += [row(1, "lora", 1, 5, **ours), row(7, "prior-w", **ours | {"parameters": 0.0})]
    rows += [row(p, "prior-w", **ours | {"parameters": 0.0}) for p in range(2)]
    lora, prior = kept_of_full(summarise(rows))
    lost = "-0.040 [-0.040, -0.040]"
    assert lora == ["LoRA, rank 1", "50", "20", "95.0 %", lost, "-", "+0.00 [-0.33, 0.33]", "-", "-"]
    assert prior[:4] == ["prior, W", "-", "20", "95.0 %"]
    assert kept_of_full(summarise([row(1, "lora", 1, **ours)])) == []


def test_few_photos_stand_beside_many():
    rows = [
        row(1, method, rank, photos) for method, rank in (("full", 0), ("lora", 1)) for photos in (1, 5, 50)
    ]
    shown = few_and_many(summarise([*rows, row(1, "lora", 1, 20), row(1, "full", 0, 1, "w+")]))
    assert list(shown) == [
        *("all weights, 1 photo", "LoRA, 1 photo"),
        *("all weights, 5 photos", "LoRA, 5 photos"),
        *("all weights, 50 photos", "LoRA, 50 photos"),
    ]
    assert few_and_many(summarise(rows[:4])) == {} == few_and_many([])


def test_a_comparison_tells_its_anchors():
    rows = [
        row(p, m, m == "lora", 50, a, heldout_identity=0.5)
        for p in range(6)
        for m in ("lora", "full")
        for a in ("w", "w+")
    ]
    (claim,) = [claim for claim in CLAIMS if claim.compares == "same photos"]
    own, other = compare(summarise(rows), claim)
    assert own.anchors == ("w", "w") and other.anchors == ("w+", "w+")
    assert compared(other).startswith("LoRA, W+ anchors | all weights, W+ anchors | 50")


def test_fewer_photos_are_set_against_the_most():
    rows = [
        row(p, "lora", 1, n, views_identity=0.7 + n / 1000 + p / 100) for p in range(6) for n in (1, 20, 50)
    ]
    (claim,) = [claim for claim in CLAIMS if claim.compares == "fewer photos"]
    one, some = compare(summarise(rows), claim)
    assert one.photos == (50, 1) and some.photos == (50, 20)
    assert one.difference == pytest.approx(0.049) and one.verdict == "agrees"
    assert compared(one).startswith("LoRA | LoRA | 50 and 1 | identity of unseen views")
