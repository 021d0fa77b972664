"""How finished work gets its name: by renaming, so that a kill leaves the old work or the new, never neither."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def publish(partial: Path, path: Path) -> None:
    """Give the folder ``partial`` the name ``path``; what had it before is moved away first and then removed."""
    old = path.with_name(f".{path.name}.replaced")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which gets the name ``path`` when it is whole; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    yield partial
    os.replace(partial, path)
