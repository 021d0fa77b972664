"""How finished work gets its name: by renaming, so that a kill leaves the old work or the new, never neither."""

from __future__ import annotations

import shutil
from pathlib import Path


def publish(partial: Path, path: Path) -> None:
    """Give the folder ``partial`` the name ``path``; what had it before is moved away first and then removed."""
    old = path.with_name(f".{path.name}.replaced")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)
