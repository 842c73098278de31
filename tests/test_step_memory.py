"""What a training step on a GPU has in memory at most, counted without one.

Tensors are fake: they have sizes and no numbers. They pass for CUDA's, so that the step takes a GPU's way,
with kernels that do nothing. What PyTorch keeps beyond tensors, and workspaces of libraries, are not counted.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from my3dgen import comparison
from my3dgen.comparison import Compared, differences
from my3dgen.config import PRESETS
from my3dgen.lora import new_adapter
from my3dgen.ops.low_pass import HAS_TRITON
from my3dgen.perceptual import Perceptual, SqueezeNet
from my3dgen.prior.generator import Generator
from my3dgen.tune import TuneConfig

BATCH = 4


class Held(TorchDispatchMode):
    """Bytes of tensors that operations make, as long as anybody holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def bytes(self) -> int:
        self.storages = {key: held for key, held in self.storages.items() if not held[0].expired()}
        return sum(size for _, size in self.storages.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.most = max(self.most, self.bytes())
        return out


@pytest.fixture
def fake_cuda(monkeypatch):
    """Inside, tensors are fake and pass for CUDA's."""
    import triton
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    is_cuda = property(lambda tensor: True)
    monkeypatch.setattr(FakeTensor, "is_cuda", is_cuda, raising=False)
    monkeypatch.setattr(torch.nn.Parameter, "is_cuda", is_cuda, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(triton.runtime.jit.JITFunction, "__getitem__", lambda *_: lambda *_, **__: None)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", lambda *given: F.conv2d(*given[:5]))
    monkeypatch.setattr(comparison, "mixed_precision", lambda _: torch.autocast("cpu", torch.bfloat16))
    with FakeTensorMode():
        yield


@pytest.mark.skipif(not HAS_TRITON, reason="no Triton")
def test_a_step_of_four_whole_pictures(fake_cuda):
    """A layer keeps one map, so 0.35 GB a picture; two maps more are the most that going back takes."""
    config = PRESETS["ffhq512-128"]
    generator = Generator(config).requires_grad_(False)
    perceptual = Perceptual("squeeze-feat", SqueezeNet()).requires_grad_(False)
    adapter = new_adapter(generator, 1, 1.0)
    photos = [torch.empty(BATCH, 3, size, size) for size in (512, 128)]
    with torch.no_grad():
        kept = tuple(tuple(perceptual.features(some)) for some in photos)
    compared = Compared(
        torch.empty(BATCH, config.num_ws, config.w_dim),
        generator.cameras().expand(BATCH, -1),
        photos[0],
        photos[0][:, :1],
        photos[1],
        photos[1][:, :1],
        torch.zeros(BATCH, dtype=torch.int64),
    )
    chosen = replace(TuneConfig(), window=None, batch=BATCH)
    with Held() as held:
        loss = differences(generator, adapter, compared, None, chosen, perceptual, kept).sum()
        remembered = held.bytes()
        loss.backward()
    assert all(t.grad is not None for n, t in adapter.tensors.items() if n.endswith("lora_B"))
    weights = 2 * sum(4 * weight.numel() for weight in generator.parameters())  # without and with the change
    assert 0.9e9 < remembered - weights < BATCH * 0.42e9
    assert held.most - weights < BATCH * 0.45e9
