"""One process of a training that a test starts with torchrun: python train_worker.py OUT OPTIONS (JSON)."""

import itertools
import json
import sys
from pathlib import Path

from my3dgen.pretrain import heads
from my3dgen.pretrain.settings import TrainConfig
from my3dgen.pretrain.train import train


def main(out: str, options: str) -> None:
    """Train with the same synthetic heads in all processes; in earnest each has its own."""
    heads.my_seeds = lambda first, ranks: itertools.count(first)
    given = json.loads(options)
    data = given.pop("data", None)
    train(TrainConfig(data=None if data is None else Path(data), **given), Path(out), device="cpu")


if __name__ == "__main__":
    main(*sys.argv[1:])
