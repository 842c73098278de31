"""Files that people ask for: what cannot be written is refused before the work; nothing is half-written."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from my3dgen.errors import UserError


def check_output(path: str | os.PathLike, suffixes: Collection[str], rule: str) -> Path:
    """The path, if a file of one of these suffixes (lower case) can be put there.

    `rule` says which suffixes there are, as in "a mesh ends in .glb or .ply". Raises UserError for another
    suffix, for a folder of that name, and where nothing may be written. Folders on the way that are missing
    are no obstacle.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file, such as {path / f'me{next(iter(suffixes))}'}")
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: {rule}, not '{path.suffix}'")
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written, for {folder} is a file; choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{path} cannot be written in {folder}; choose another place or change its permissions"
        )
    return path


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """A path beside `path` to write to, of the same suffix; it takes the place of `path` in the end.

    Missing folders are made. When the block is left by an error, `path` is as it was and nothing else stays;
    an OSError without a name, or with the name beside, gets that of `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        if error.filename in (None, str(beside)):
            error.filename = str(path)  # the name people know
        raise
    finally:
        beside.unlink(missing_ok=True)
