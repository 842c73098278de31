"""What a capture refuses, refused without a GPU."""

import traceback

from torch.utils._python_dispatch import TorchDispatchMode

FROM_OR_TO_THE_HOST = {"lift_fresh", "_local_scalar_dense", "nonzero", "is_nonzero", "unique2"}


class OnTheDevice(TorchDispatchMode):
    """Refuses what a capture refuses: numbers that come from the host or go there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in FROM_OR_TO_THE_HOST:
            # the filter's taps and shares of texels: on CUDA kernels have them
            assert any(
                frame.name in ("low_pass", "lowpass_filter") or frame.filename.endswith("triplane_cpu.py")
                for frame in traceback.extract_stack()
            ), name
        return func(*args, **(kwargs or {}))
