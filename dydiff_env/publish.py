"""How finished work gets its name: by renaming, so that a kill leaves the old work or the new, never neither.

Only work of the same kind is ever replaced: a folder that holds anything else is somebody's.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dydiff_env.errors import DyDiffError

WORLD = ("world.json",)  # of these files a folder of each kind has one
DATASET = ("metadata.json", "data/metadata.json")
PATIENCE = 50  # times that a name is tried, a tenth of a second apart


def check_free(path: Path, overwrite: bool, kind: tuple[str, ...]) -> None:
    """Make sure that a folder may be made at ``path``.

    Args:
        path: of the folder.
        overwrite: whether it may take the place of another of its kind.
        kind: WORLD or DATASET.

    Raises:
        DyDiffError: where something is there that is to stay.
    """
    check_name(path)
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise DyDiffError(f"{path} exists.", "Choose another name, or replace it with --overwrite (overwrite=True).", usage=True)
    if path.is_symlink():  # renamed away, it would leave what it points to behind
        raise DyDiffError(f"{path} is a link.", f"Name what it points to: {path.resolve()}.", usage=True)
    if not path.is_dir() or (not any((path / file).is_file() for file in kind) and any(path.iterdir())):
        thing = "world" if kind == WORLD else "dataset"
        raise DyDiffError(f"{path} is there and is not a {thing}: it stays.", "Choose another name, or move it away.", usage=True)


def check_name(path: Path) -> None:
    """Refuse ``.`` and ``..``, beside which nothing can be named.

    Raises:
        DyDiffError: naming the path.
    """
    if not path.name or path.name == "..":
        raise DyDiffError(f"{path} is not a name for something new.", "Name a file or folder inside it.", usage=True)


def publish(partial: Path, path: Path) -> None:
    """Give the folder ``partial`` the name ``path``; what had it before is moved away first and then removed."""
    old = path.with_name(f".{path.name}.replaced")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        _rename(path, old)
    _rename(partial, path)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which gets the name ``path`` when it is whole; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    yield partial
    _rename(partial, path)


def _rename(path: Path, name: Path) -> None:
    """Where an open file cannot be renamed or replaced, on Windows, whoever reads it is waited for."""
    for left in reversed(range(PATIENCE)):
        try:
            os.replace(path, name)
            return
        except PermissionError:
            if os.name != "nt" or not left:
                raise
            time.sleep(0.1)
