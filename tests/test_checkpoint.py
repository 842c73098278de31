import torch

from my3dgen.checkpoint import (
    fingerprint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)


def test_round_trip(tmp_path):
    path = tmp_path / "me.training"
    save_checkpoint(path, "this", {"a": torch.arange(3), "b": torch.tensor(2.0)}, {"steps": 7})
    kept = load_checkpoint(path, "this")
    assert kept is not None
    assert kept.state == {"steps": 7}
    assert torch.equal(kept.tensors["a"], torch.arange(3))
    assert list(tmp_path.iterdir()) == [path]


def test_other_and_damaged_work_is_not_continued(tmp_path, capsys):
    path = tmp_path / "me.training"
    assert load_checkpoint(path, "this") is None
    assert capsys.readouterr().err == ""
    save_checkpoint(path, "that", {"a": torch.zeros(2)}, {})
    assert load_checkpoint(path, "this") is None
    assert "other photos or options" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:20])
    assert load_checkpoint(path, "that") is None
    assert "damaged" in capsys.readouterr().err


def test_a_fingerprint_knows_every_bit():
    a = torch.zeros(4)
    b = a.clone()
    b[2] = 1e-30
    assert fingerprint("x", 1, a) == fingerprint("x", 1, a.clone())
    others = [("x", 1, a), ("x", 1, b), ("x", 2, a), ("y", 1, a)]
    assert len({fingerprint(*parts) for parts in others}) == 4
    assert fingerprint(torch.tensor(1.0)) != fingerprint(torch.tensor(2.0))  # a number is a tensor, too
    assert fingerprint(a) != fingerprint(a.reshape(2, 2))


def test_an_optimizer_goes_on_bit_for_bit(tmp_path):
    def run(steps, leaf, optimizer, begin=0):
        for step in range(begin, steps):
            optimizer.zero_grad()
            (leaf - step).square().sum().backward()
            optimizer.step()

    def fresh():
        leaf = torch.ones(5, requires_grad=True)
        unused = torch.ones(2, requires_grad=True)  # never has a gradient, so never any state
        return leaf, torch.optim.Adam([leaf, unused], lr=0.1, betas=(0.0, 0.99))

    whole, optimizer = fresh()
    run(6, whole, optimizer)
    first, optimizer = fresh()
    run(3, first, optimizer)
    save_checkpoint(tmp_path / "x", "x", {"leaf": first} | optimizer_tensors(optimizer), {})
    kept = load_checkpoint(tmp_path / "x", "x")
    assert kept is not None
    second, optimizer = fresh()
    with torch.no_grad():
        second.copy_(kept.tensors["leaf"])
    restore_optimizer(optimizer, kept.tensors)
    run(6, second, optimizer, begin=3)
    assert torch.equal(whole, second)
