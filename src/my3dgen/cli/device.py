"""The device behind `--device`."""


def chosen_device(device: str) -> str:
    """`cpu` or `cuda` for auto, cpu or cuda. Raises UserError for cuda where there is none."""
    import torch

    from my3dgen.errors import UserError

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is present; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
