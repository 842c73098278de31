import json
from pathlib import Path

import pytest

from my3dgen.errors import FileFormatError, UserError
from my3dgen.evaluate.demo import BUNDLED
from my3dgen.evaluate.method_protocol import METHODS
from my3dgen.evaluate.method_protocol_file import OWN_SEEDS, parse_protocol, read_protocol
from my3dgen.evaluate.prior_people import MOST_HEADS, MOST_SEEDS, RESERVED, compared_seeds, inverted_seeds
from my3dgen.synthetic.album import read_truth
from my3dgen.synthetic.factors import HELD_OUT_SEEDS, TRAIN_SEEDS

SHIPPED = Path(__file__).parent.parent.parent / "benches" / "protocol.json"


def test_the_people_of_the_shipped_protocol_were_never_met():
    protocol = read_protocol(SHIPPED)
    people = {*protocol.people, *protocol.tuning_people}
    assert len(protocol.people) == 16 and len(protocol.tuning_people) == 6 and len(people) == 22
    for seed in people:
        assert seed in HELD_OUT_SEEDS and seed not in TRAIN_SEEDS and seed not in HELD_OUT_SEEDS[:RESERVED]
    for seed in (0, 9, MOST_SEEDS - 1):
        for others in (inverted_seeds(seed, MOST_HEADS), compared_seeds(seed, MOST_HEADS)):
            assert people.isdisjoint(others)
    assert read_truth(BUNDLED).seed not in people


def test_the_shipped_protocol_asks_what_the_paper_claims():
    protocol = read_protocol(SHIPPED)
    assert protocol.learned == 50 and protocol.album - protocol.learned == 10
    assert {abs(yaw) for yaw in protocol.yaws} == {0, 15, 30, 45}
    names = [row.name for row in protocol.rows(protocol.people[:1])]
    assert len(set(names)) == len(names)
    wanted = [f"lora-r1-{n}-w" for n in (1, 5, 10, 20, 50)] + [f"full-{n}-w" for n in (1, 10, 50)]
    wanted += [f"lora-r{rank}-50-w" for rank in (2, 4, 8)] + ["lora-r1-50-w+", "full-50-w+"]
    wanted += ["prior-w-50-w", "prior-w+-50-w+", "pti-0-w", "control-r1-50-w"]
    assert set(wanted) <= set(names)
    assert {row.method for row in protocol.rows(protocol.people[:1])} == set(METHODS)
    # a control borrows an adapter that lora's row has trained
    settings = {row.name: row.training for row in protocol.rows(protocol.people[:1])}
    assert settings["control-r1-50-w"] == settings["lora-r1-50-w"]


def test_a_protocol_survives_json(toy_protocol):
    protocol = parse_protocol(toy_protocol)
    assert parse_protocol(json.loads(json.dumps(protocol.to_json()))) == protocol


def test_rows_are_all_combinations_that_are_asked_for(toy_protocol):
    protocol = parse_protocol(toy_protocol)
    rows = protocol.rows(protocol.people)
    assert len(rows) == 28 and len({(row.person, row.name) for row in rows}) == 28
    one = protocol.rows(protocol.people[:1], ["pti", "lora"], [1])
    assert [row.name for row in one] == ["pti-0-w", "lora-r1-1-w"]
    with pytest.raises(
        UserError,
        match=r"no method 'lara'.*prior-w, pti, full, full-pti, lora, lora-pti, lora-int8, lora-small",
    ):
        protocol.rows(protocol.people, ["lara"])
    with pytest.raises(UserError, match="have 1, 5 photos"):
        protocol.rows(protocol.people, ["lora"], [7])


def test_the_control_is_the_next_person(toy_protocol):
    protocol = parse_protocol(toy_protocol)
    first, last = protocol.people
    assert protocol.after(first) == last and protocol.after(last) == first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "'format' is not 1"),
        ({"people": [5]}, "'people' is not a whole number from"),
        ({"people": [OWN_SEEDS[0]] * 2}, "'people' has a seed twice"),
        ({"people": [1_099_991_000]}, "shares seeds with 'tuning_people'"),
        ({"yaws": [-15, 15]}, "0 among them"),
        ({"yaws": [0, 15, 15]}, "0 among them"),
        ({"album": 10**9}, "'album' is not a whole number from 6 to 600"),
        ({"album": True}, "'album'"),
        ({"photo_size": 257}, "multiple of 64"),
        ({"moments": 2}, "more than the held-out photos"),
        ({"methods": []}, "'methods' is not a list of methods"),
        ({"methods": [{"method": "magic", "photos": [1]}]}, "'magic', not one of"),
        ({"methods": [{"method": "lora", "photos": [1]}]}, "'lora: ranks'"),
        ({"methods": [{"method": "lora", "photos": [6], "ranks": [1]}]}, "'lora: photos'.*from 1 to 5"),
        ({"methods": [{"method": "full", "photos": [1], "ranks": [1]}]}, "'full' has no ranks"),
        ({"methods": [{"method": "lora-small", "photos": [1], "ranks": [1]}]}, "'lora-small' lacks budget"),
        ({"methods": [{"method": "full", "photos": [1], "training": {"budget": 9}}]}, "'full' has no budget"),
        ({"methods": [{"method": "lora-placed", "photos": [1], "ranks": [1]}]}, "lacks ranks of groups"),
        ({"methods": [{"method": "full", "photos": [1], "training": {"ranks": "b4=0"}}]}, "no ranks of"),
        ({"methods": [{"method": "full", "photos": [1], "training": {"ranks": 3}}]}, "is not text such as"),
        (
            {"methods": [{"method": "lora-pti", "photos": [1], "ranks": [1], "pivoting": {"ranks": "b4=0"}}]},
            "pivoting' has no ranks",
        ),
        ({"methods": [{"method": "full-pti", "photos": [1], "pivoting": {"budget": 9}}]}, "has no budget"),
        (
            {"methods": [{"method": "full-pti", "photos": [1], "pivoting": {"alpha": 2}}]},
            "that 'alpha' would",
        ),
        ({"methods": [{"method": "full", "photos": [1], "training": {"ranks": "b5=0"}}]}, "group 'b5'"),
        ({"methods": [{"method": "pti", "photos": [1]}]}, "'pti: photos'"),
        ({"methods": [{"method": "full", "photos": [1], "training": {"rate": 2}}]}, "rate' is not between"),
        ({"methods": [{"method": "full", "photos": [1], "training": {"alpha": 0}}]}, "alpha' is not above 0"),
        ({"methods": [{"method": "full", "photos": [1], "training": {"alpha": 2}}]}, "that 'alpha' would"),
        ({"methods": [{"method": "full", "photos": [1], "training": {"tempo": 2}}]}, "unknown entry 'tempo'"),
        ({"methods": [{"method": "full", "photos": [1], "training": {"refine": -1}}]}, "refine' is not from"),
        ({"methods": [{"method": "pti", "photos": [0], "training": {"refine": 0.1}}]}, "no anchors to ref"),
        (
            {"methods": [{"method": "prior-w", "photos": [1], "anchors": ["w+"]}]},
            "those of the method itself",
        ),
        ({"methods": [{"method": "full", "photos": [1, 1]}]}, "row full-1-w twice"),
        ({"surprise": 1}, "unknown entry 'surprise'"),
        ({"samples": None}, "'samples'"),
    ],
)
def test_a_wrong_value_is_named(toy_protocol, tmp_path, change, words):
    path = tmp_path / "protocol.json"
    path.write_text(json.dumps(toy_protocol | change))
    with pytest.raises(FileFormatError, match=words) as error:
        read_protocol(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[" * 100_000, "[]", "{}", "\x00"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "protocol.json"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=r"benches/protocol\.json"):
        read_protocol(path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_protocol(tmp_path / "absent.json")
