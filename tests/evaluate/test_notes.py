from copy import deepcopy

from my3dgen.evaluate.notes import lost_figures, notes_on

BETTER = {"psnr": 22.0, "psnr_image": 23.0, "perceptual": 1.0, "identity": 0.95}
WORSE = {"psnr": 20.0, "psnr_image": 21.0, "perceptual": 2.0, "identity": 0.90}
REPORT = {
    "prior": {"name": "mini", "directions": ["smile"]},
    "methods": {"prior": {"heldout": WORSE, "views": WORSE}, "lora": {"heldout": BETTER, "views": BETTER}},
}


def test_nothing_lost():
    assert lost_figures(REPORT) == []
    assert any("in every figure" in note for note in notes_on(REPORT))


def test_every_loss_is_told():
    report = deepcopy(REPORT)
    report["methods"]["lora"]["views"] = BETTER | {"perceptual": 3.0, "psnr": 19.0}
    assert lost_figures(report) == ["head PSNR in unseen views", "perceptual distance in unseen views"]
    (told,) = (note for note in notes_on(report) if "always help" in note)
    assert "perceptual distance in unseen views" in told
    assert not any("in every figure" in note for note in notes_on(report))


def test_a_prior_without_directions_explains_the_missing_smile():
    report = deepcopy(REPORT)
    assert not any("no smile" in note for note in notes_on(report))
    report["prior"]["directions"] = []
    assert any("no smile" in note for note in notes_on(report))
