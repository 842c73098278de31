import pytest
import torch

from my3dgen.evaluate.prior_groups import by_group, groups_of, worst_group
from my3dgen.synthetic.factors import HELD_OUT_SEEDS, sample_factors, with_factors


def heads(melanin, age, sex):
    factors = sample_factors(range(len(melanin)))
    for row, values in enumerate(zip(melanin, age, sex, strict=True)):
        one = with_factors(factors[row : row + 1], "skin", melanin=values[0])
        factors[row : row + 1] = with_factors(one, "macro", age=values[1], sex=values[2])
    return factors


def test_every_head_is_in_one_group_of_each_attribute_and_thirds_are_thirds():
    groups = groups_of(sample_factors(HELD_OUT_SEEDS[:3000]))
    for names in groups.values():
        flags = torch.stack(list(names.values()))
        assert (flags.sum(0) == 1).all()
        assert flags.float().mean(1).tolist() == pytest.approx([1 / len(names)] * len(names), abs=0.03)


def test_figures_of_known_groups():
    factors = heads([-1.0, -2.0, 0.0, 1.0], [-1.0, 0.1, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0])
    psnr = torch.tensor([20.0, 22.0, 24.0, 18.0])
    groups = by_group(factors, {"inversion_psnr": psnr})
    light = groups["skin"]["light"]
    assert light["count"] == 2
    assert light["inversion_psnr"] == pytest.approx({"mean": 21.0, "difference": 0.0, "error": 1.0})
    assert groups["skin"]["dark"]["inversion_psnr"] == {"mean": 18.0, "difference": -3.0, "error": None}
    assert groups["age"]["older"]["inversion_psnr"]["mean"] == 21.0
    assert groups["sex"]["feminine"]["inversion_psnr"]["difference"] == 1.0
    worst = worst_group(groups)
    assert (worst["attribute"], worst["group"], worst["figure"]) == ("skin", "dark", "inversion_psnr")
    assert worst["difference"] == -3.0 and worst["count"] == 1


def test_a_group_without_heads_is_left_out():
    groups = by_group(heads([1.0], [1.0], [1.0]), {"view30_psnr": torch.tensor([20.0])})
    assert {name: list(of) for name, of in groups.items()} == {
        "skin": ["dark"],
        "age": ["older"],
        "sex": ["masculine"],
    }
