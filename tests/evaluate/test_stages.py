import json

import pytest

from my3dgen.evaluate.stages import Stages, peak_rss_mb


class Chain:
    """Two stages, counting how often each really worked."""

    def __init__(self, folder):
        self.folder, self.worked = folder, []

    def work(self, name, answer):
        self.worked.append(name)
        return answer

    def run(self, first=1, second=1):
        stages = Stages(self.folder)
        one = stages.run("one", {"value": first}, lambda: self.work("one", first))
        two = stages.run("two", {"value": second}, lambda: self.work("two", [one, second]), needs=("one",))
        return two, stages


def test_a_second_run_repeats_nothing(tmp_path):
    chain = Chain(tmp_path)
    answer, stages = chain.run()
    again, _ = chain.run()
    assert answer == again == [1, 1]
    assert chain.worked == ["one", "two"]
    assert set(stages.seconds()) == {"one", "two"}
    assert 0 < stages.peak_rss_mb() <= peak_rss_mb() + 1


def test_only_what_a_change_reaches_is_redone(tmp_path):
    chain = Chain(tmp_path)
    chain.run()
    assert chain.run(second=2)[0] == [1, 2]
    assert chain.worked == ["one", "two", "two"]
    assert chain.run(first=3, second=2)[0] == [3, 2]
    assert chain.worked == ["one", "two", "two", "one", "two"]


def test_a_stopped_stage_runs_again_and_earlier_ones_do_not(tmp_path):
    chain = Chain(tmp_path)
    real = chain.work

    def stopped(name, answer):
        if name == "two":
            raise KeyboardInterrupt
        return real(name, answer)

    chain.work = stopped
    with pytest.raises(KeyboardInterrupt):
        chain.run()
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]
    chain.work = real
    assert chain.run()[0] == [1, 1]
    assert chain.worked == ["one", "two"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"asked": 1}'])
def test_a_damaged_stamp_counts_as_none(tmp_path, damage):
    chain = Chain(tmp_path)
    chain.run()
    (tmp_path / "one.json").write_text(damage)
    chain.run()
    assert chain.worked == ["one", "two", "one"]
    assert json.loads((tmp_path / "one.json").read_text())["answer"] == 1
