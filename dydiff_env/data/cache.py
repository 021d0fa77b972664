"""Datasets kept as memory-mapped ``.npy`` files, so that a second load takes milliseconds and no memory."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from dydiff_env.data.dataset import ARRAYS, Dataset, DatasetSpec
from dydiff_env.errors import DyDiffError

LAYOUT = 2  # part of the key: a change of the files' layout makes old entries unfindable


def cache_root() -> Path:
    """``$DYDIFF_ENV_CACHE``, else ``~/.cache/dydiff-env``."""
    return Path(os.environ.get("DYDIFF_ENV_CACHE") or Path.home() / ".cache" / "dydiff-env")


def cache_entry(source: Path) -> Path:
    """Where a dataset folder is cached: named by its path, and by every file's size and time of change."""
    place, state = hashlib.sha256(f"{LAYOUT} {source.resolve()}".encode()), hashlib.sha256()
    for file in sorted(source.rglob("*")):
        with suppress(FileNotFoundError):  # a link to nowhere, or gone by now
            status = file.stat()
            state.update(f"{file.relative_to(source)} {status.st_size} {status.st_mtime_ns}".encode())
    return cache_root() / "datasets" / f"{place.hexdigest()[:16]}-{state.hexdigest()[:16]}"


def read_entry(entry: Path) -> Dataset | None:
    """The cached dataset, or None where there is none or it is damaged."""
    try:
        spec = DatasetSpec.from_json((entry / "spec.json").read_text())
        arrays = [np.asarray(np.load(entry / f"{name}.npy", mmap_mode="r")) for name in ARRAYS]
    except (OSError, ValueError, KeyError, TypeError, EOFError, DyDiffError):
        return None
    dataset = Dataset(spec, *arrays)
    episodes, steps = len(dataset.terminations), len(dataset.actions)
    whole = (len(dataset.offsets) == episodes + 1 and dataset.transitions == steps == len(dataset.rewards)
             and dataset.observations.shape == (steps + episodes, spec.observation_size))
    return dataset if whole else None


def write_entry(entry: Path, dataset: Dataset) -> Dataset:
    """Cache ``dataset`` by one rename and return it memory-mapped, or as it is where the disk refuses."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".partial", dir=entry.parent))
    except OSError:
        return dataset
    try:
        for name in ARRAYS:
            np.save(partial / f"{name}.npy", getattr(dataset, name))
        (partial / "spec.json").write_text(dataset.spec.to_json())
        partial.chmod(entry.parent.stat().st_mode & 0o777)  # as the folder: others may share it
        if read_entry(entry) is None:  # else another process was first, and may have mapped it by now
            shutil.rmtree(entry, ignore_errors=True)  # damaged
            partial.rename(entry)
        for old in entry.parent.glob(f"{entry.name.partition('-')[0]}-*"):  # of the folder as it was before
            if not old.name.startswith(entry.name):
                shutil.rmtree(old, ignore_errors=True)
    except OSError:
        pass
    shutil.rmtree(partial, ignore_errors=True)
    return read_entry(entry) or dataset
