"""The command line: one verb a file, each a dataclass whose fields are its options.

Only the verb asked for is imported, and verbs import heavy libraries inside `run`, so
`--help` answers at once. Exit codes: 0 done, 2 for what the user can mend, 130 after Ctrl-C.
"""

import errno
import importlib
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from my3dgen import __version__
from my3dgen.allocator import keep_freed_memory
from my3dgen.errors import UserError
from my3dgen.progress import say

# verb -> (module, dataclass, one line). Two-word verbs are groups.
VERBS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "Demo", "the bundled album through the whole path into out/demo"),
    "faces": ("faces", "Faces", "photos to an album: detect, crop, camera, report"),
    "personalize": ("personalize", "Personalize", "an album to a small person file"),
    "render": ("render", "Render", "a person from chosen views"),
    "orbit": ("orbit", "Orbit", "a person as a turning video"),
    "interpolate": ("interpolate", "Interpolate", "between two of a person's photos"),
    "sample": ("sample", "Sample", "new appearances from a person's alpha-space"),
    "invert": ("invert", "Invert", "a new photo into a person's alpha-space, then new views"),
    "edit": ("edit", "Edit", "change an attribute, such as the smile"),
    "enhance": ("enhance", "Enhance", "fill a hole in a photo, or enlarge it, from a person"),
    "mesh": ("mesh", "Mesh", "a person's 3D shape as GLB and PLY"),
    "prior list": ("prior_list", "PriorList", "the priors on this machine"),
    "prior show": ("prior_show", "PriorShow", "one prior: sizes, hash, card"),
    "prior import": ("prior_import", "PriorImport", "bring your own EG3D checkpoint"),
    "prior train": ("prior_train", "PriorTrain", "train a prior on synthetic heads or your dataset"),
    "prior publish": ("prior_publish", "PriorPublish", "a trained state to a prior"),
    "prior encoder": ("prior_encoder", "PriorEncoder", "train where a prior's inversion starts"),
    "prior directions": ("prior_directions", "PriorDirections", "find a prior's edit directions"),
    "evaluate prior": ("evaluate_prior", "EvaluatePrior", "a prior in figures, by heads it never saw"),
    "evaluate method": ("evaluate_method", "EvaluateMethod", "adapters against full tuning and the prior"),
    "evaluate person": ("evaluate_person", "EvaluatePerson", "a person file by photos it has not seen"),
    "bench render": ("bench", "BenchRender", "how fast pictures are made, by stage and path"),
    "bench people": ("bench", "BenchPeople", "one person a batch against one an image"),
    "bench personalize": ("bench", "BenchPersonalize", "training steps, and a whole personalization"),
    "bench cpu": ("bench", "BenchCpu", "the embedded prior without a GPU"),
    "peft export": ("peft_export", "PeftExport", "a person's adapter as a PEFT folder"),
    "peft import": ("peft_import", "PeftImport", "a PEFT folder's adapter into a person file"),
    "synthetic album": ("synthetic_album", "SyntheticAlbum", "photos of one synthetic person"),
    "synthetic dataset": ("synthetic_dataset", "SyntheticDataset", "an EG3D dataset of heads"),
    "doctor": ("doctor", "Doctor", "what is present, what is missing, and the remedy"),
}


HELP = ("-h", "--help", "help")


def usage(group: str = "") -> str:
    """The text of `my3dgen --help`, or of a group's, such as `my3dgen prior --help`."""
    verbs = {verb: about for verb, (_, _, about) in VERBS.items() if not group or verb in members(group)}
    width = max(map(len, verbs))
    lines = [f"usage: my3dgen {f'{group} ' if group else ''}VERB [OPTIONS]", "", "verbs:"]
    lines += [f"  {verb:<{width}}  {about}" for verb, about in verbs.items()]
    lines += ["", "my3dgen VERB --help lists a verb's options."]
    return "\n".join(lines)


def members(group: str) -> list[str]:
    """The verbs of a group; none if there is no such group."""
    return [verb for verb in VERBS if verb.startswith(f"{group} ")]


def split_verb(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The verb at the head of the arguments, and the rest. Raises UserError if unknown."""
    for words in (2, 1):
        verb = " ".join(arguments[:words])
        if verb in VERBS:
            return verb, list(arguments[words:])
    if group := members(arguments[0]):
        raise UserError(f"'{arguments[0]}' needs one of: {', '.join(v.split()[1] for v in group)}")
    raise UserError(f"unknown verb '{arguments[0]}'; my3dgen --help lists them")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in HELP:
        print(usage())
        return 0
    if arguments == ["--version"]:
        print(f"my3dgen {__version__}")
        return 0
    if members(arguments[0]) and arguments[1:2] and arguments[1] in HELP:
        print(usage(arguments[0]))
        return 0
    try:
        verb, rest = split_verb(arguments)
        module, config, _ = VERBS[verb]
        return run_verb(verb, getattr(importlib.import_module(f"my3dgen.cli.{module}"), config), rest)
    except UserError as error:
        say(f"my3dgen: {error}")
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and error.filename is None:
            # whoever read stdout has seen enough; what we write to has a name
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if error.errno == errno.ENOSPC:
            where = f" while writing {error.filename}" if error.filename else ""
            say(f"my3dgen: the disk is full{where}; free some space and run again")
            return 2
        if error.filename is not None:
            from my3dgen.prior.inert_pickle import one_line

            say(f"my3dgen: {one_line(error.filename)}: {error.strerror}")
            return 2
        raise
    except KeyboardInterrupt:
        say("my3dgen: stopped")
        return 130


def run_verb(verb: str, config: type, arguments: list[str]) -> int:
    """Parse a verb's options, run it, and print its result (one JSON object with --json)."""
    import tyro

    parsed = tyro.cli(config, prog=f"my3dgen {verb}", args=arguments)
    keep_freed_memory()
    try:
        result = parsed.run()
    except KeyboardInterrupt:
        kept = "finished work is kept, run the same command to go on"
        say(f"my3dgen: stopped; {kept if parsed.goes_on() else 'the same command starts anew'}")
        return 130
    if parsed.json:
        print(json.dumps(json_values(result), allow_nan=False))
    sys.stdout.flush()
    return parsed.exit_code(result)


def json_values(value: Any) -> Any:
    """The same with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: json_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
