"""Half the numbers' size where that is faster: bfloat16 on GPUs and on CPUs that multiply it."""

import contextlib
from contextlib import AbstractContextManager

import torch


def has_fast_bfloat16(device: torch.device | str) -> bool:
    """Whether convolutions in bfloat16 beat float32: GPUs since Ampere, CPUs with AMX or AVX512-BF16."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.device(device).type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


def mixed_precision(device: torch.device | str) -> AbstractContextManager:
    """Autocast to bfloat16 where it is faster, else nothing."""
    if has_fast_bfloat16(device):
        return torch.autocast(torch.device(device).type, torch.bfloat16)
    return contextlib.nullcontext()
