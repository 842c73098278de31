import itertools

import torch

from my3dgen import precision
from my3dgen.allocator import keep_freed_memory


def test_autocast_only_where_it_is_faster(monkeypatch):
    for tiles, products in itertools.product((False, True), repeat=2):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda there=tiles: there)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=products: there)
        fast = tiles or products
        with precision.mixed_precision("cpu"):
            assert torch.is_autocast_enabled("cpu") == fast
            expected = torch.bfloat16 if fast else torch.float32
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_keeping_memory_is_harmless_anywhere(monkeypatch):
    keep_freed_memory()
    assert torch.ones(1 << 20).sum() == 1 << 20
    monkeypatch.setattr("sys.platform", "win32")
    keep_freed_memory()
