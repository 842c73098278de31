"""A stranger's EG3D checkpoint becomes a prior folder, with nothing in the file ever run.

file ──checkpoint_file──▶ inert tree ──snapshot──▶ tensors, arguments ──▶ config, folder
"""

import hashlib
from pathlib import Path

from my3dgen.config import PRESETS, PriorConfig
from my3dgen.errors import FileFormatError, UserError
from my3dgen.lora import ADAPTED
from my3dgen.prior.checkpoint_file import read_checkpoint
from my3dgen.prior.eg3d_config import derive_config
from my3dgen.prior.inert_pickle import one_line
from my3dgen.prior.snapshot import FACTORS, Snapshot, lora_ranks, merged_tensors, take_snapshot
from my3dgen.prior.store import check_new_name, generator_shapes, write_prior

UNUSED = "dataset_label_std"
SHARED_BYTES = 1 << 20  # small constants that many layers may share

CARD = """\
# {name}

Imported from an EG3D checkpoint (`{file}`, sha256 `{digest}`).

**Licence.** The weights NVIDIA publishes for EG3D, and what is fine-tuned from them, are under the
NVIDIA Source Code License for EG3D: research and evaluation only, **non-commercial**. Weights trained
by others carry their own terms. my3dgen's licence (Apache-2.0) does not cover this folder, and a
person made on this prior can't be used beyond the prior's terms.

**Origin.** {origin}

The weights were read as inert data; the program text inside the checkpoint was neither kept nor run.
"""


def import_checkpoint(
    path: Path, name: str, *, like: str | None = None, lora_alpha: float | None = None
) -> Path:
    """Read a checkpoint and write the user's prior `name`; return its folder.

    Reads EG3D's training pickles, My3DGen's snapshots (LoRA is merged into plain weights) and
    torch.save files with a `G_ema` state dict. The latter don't say how the generator was built:
    `like` names the preset. `lora_alpha` is used if a snapshot does not state its own.
    Raises UnsafePickleError, FileFormatError or UserError, one line that names the file.
    """
    path = Path(path)
    if like is not None and like not in PRESETS:
        raise UserError(f"--like {like}: unknown preset; choose one of {', '.join(PRESETS)}")
    if lora_alpha is not None and not 0 < lora_alpha < 1e6:
        raise UserError(f"--lora-alpha {lora_alpha}: give the positive number the model was trained with")
    folder = check_new_name(name)
    tree = read_checkpoint(path)
    try:
        snapshot = take_snapshot(tree)
        config = chosen_config(snapshot, like)
        check_shapes(snapshot, config)
        check_memory(snapshot, path.stat().st_size)
        tensors = merged_tensors(snapshot, lora_alpha)
    except FileFormatError as error:
        raise type(error)(f"{path}: {one_line(error)}") from None
    tensors.pop(UNUSED, None)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    wrapped = any(key.endswith(".lora_A") for key in snapshot.tensors)
    origin = (
        "A My3DGen training snapshot; its LoRA is merged into the weights."
        if wrapped
        else (
            f"Architecture taken from the preset `{like}`, because the file holds weights only."
            if snapshot.weights_only
            else "Architecture and rendering options as stated in the checkpoint."
        )
    )
    card = CARD.format(name=name, file=path.name.replace("`", "'"), digest=digest, origin=origin)
    return write_prior(folder, config, tensors, card)


def chosen_config(snapshot: Snapshot, like: str | None) -> PriorConfig:
    """The checkpoint's own configuration, or the preset where it has none."""
    if not snapshot.weights_only:
        if like is not None:
            raise FileFormatError("says itself how its model is built; leave out --like")
        return derive_config(snapshot)
    if like is None:
        raise FileFormatError(
            "holds weights only, without rendering options; say which model with --like "
            f"({', '.join(PRESETS)})"
        )
    return PRESETS[like]


def check_shapes(snapshot: Snapshot, config: PriorConfig) -> None:
    """The snapshot must hold the configuration's generator: every entry, its shape, nothing else.

    LoRA factors may stand beside the weights that adapters change. Only names, sizes and dtypes are
    looked at. Raises FileFormatError.
    """
    found = {key: tensor.size for key, tensor in snapshot.tensors.items() if not key.endswith(FACTORS)}
    expected = generator_shapes(config)
    if UNUSED in found:
        expected[UNUSED] = (config.c_dim,)
    if missing := sorted(set(expected) - set(found)):
        raise FileFormatError(f"lacks '{missing[0]}' ({len(missing)} of {len(expected)} entries are missing)")
    if extra := sorted(set(found) - set(expected)):
        raise FileFormatError(f"holds '{extra[0][:80]}' and {len(extra) - 1} more that EG3D does not have")
    for key, shape in expected.items():
        if found[key] != shape:
            raise FileFormatError(f"has '{key}' of shape {found[key]}; its options ask for {shape}")
    if unknown := [layer for layer in lora_ranks(snapshot) if not layer.startswith(ADAPTED)]:
        raise FileFormatError(f"holds LoRA matrices in '{unknown[0][:80]}', which no adapter changes")
    for key, tensor in snapshot.tensors.items():
        if not tensor.storage.dtype.is_floating_point:
            kind = str(tensor.storage.dtype).removeprefix("torch.")
            raise FileFormatError(f"has '{key}' as {kind}; weights must be floating-point numbers")


def check_memory(snapshot: Snapshot, file_bytes: int) -> None:
    """Refuse tensors that together take more than the file has: many views of the same few bytes."""
    if snapshot.nbytes > file_bytes + SHARED_BYTES:
        needed, there = (f"{count / 2**20:.0f} MiB" for count in (snapshot.nbytes, file_bytes))
        raise FileFormatError(f"describes {needed} of tensors in a file of {there}")
