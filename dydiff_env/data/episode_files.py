"""Minari's storage formats, written far faster than Minari writes them: one HDF5 file, or an Arrow file an episode."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import h5py
import numpy as np

from dydiff_env.data.dataset import Dataset
from dydiff_env.data.flattening import leaves, unflatten_batch


class Columns(NamedTuple):
    """One episode of L steps, in the spaces' own structure and dtypes."""

    observations: Any  # L+1 rows, or a dict of such
    actions: Any  # L rows
    rewards: np.ndarray  # (L,) float64
    terminations: np.ndarray  # (L,) bool
    truncations: np.ndarray  # (L,) bool


def write_hdf5(folder: Path, batches: Iterable[Dataset]) -> None:
    """``main_data.hdf5``, a group an episode, by HDF5's low-level calls.

    HDF5 does not survive a disk that fills up while it writes (the process may crash later), so the room for each batch
    is reserved before it is written.

    Raises:
        OSError: where the disk is too small; the file is then closed in order.
    """
    path, index = folder / "main_data.hdf5", 0
    # Of HDF5's newer formats only what its release 1.8 reads: groups take few bytes, and whoever has an older h5py can open the file.
    with h5py.File(path, "w", libver="v108", track_order=True) as file:
        for batch in batches:
            reserve(path, file.id.get_filesize(), _bytes(batch))
            for episode in _episodes(batch):
                group = h5py.h5g.create(file.id, f"episode_{index}".encode())
                _attribute(group, b"id", index)
                _attribute(group, b"total_steps", len(episode.rewards))
                for name, values in episode._asdict().items():
                    _store(group, name, values)
                index += 1
        file.flush()
        size = file.id.get_filesize()
    os.truncate(path, size)  # give back what was reserved and not needed


def write_arrow(folder: Path, batches: Iterable[Dataset]) -> None:
    """A folder an episode, named by its number: ``part-0.arrow``, padded to L+1 rows as Minari does, and its metadata."""
    import pyarrow as pa

    for index, episode in enumerate(episode for batch in batches for episode in _episodes(batch)):
        place, steps = folder / str(index), len(episode.rewards)
        place.mkdir()
        arrays = {name: _arrow(pa, values, steps + 1) for name, values in episode._asdict().items()}
        table = pa.RecordBatch.from_pydict(arrays)
        with pa.OSFile(str(place / "part-0.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
            out.write_batch(table)
        (place / "metadata.json").write_text(json.dumps({"id": index, "total_steps": steps}))


FORMATS: dict[str, Callable[[Path, Iterable[Dataset]], None]] = {"hdf5": write_hdf5, "arrow": write_arrow}


def _episodes(batch: Dataset) -> Iterator[Columns]:
    seen, done = batch.spec.observation_space, batch.spec.action_space
    for i, (start, stop) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:], strict=True)):
        ends = np.zeros((2, stop - start), bool)
        ends[0 if batch.terminations[i] else 1, -1] = True
        yield Columns(  # an episode at a time: in float64 and with its bounds a whole batch takes five times its room
            _exact(seen, unflatten_batch(seen, batch.observations[start + i : stop + i + 1])),
            _exact(done, unflatten_batch(done, batch.actions[start:stop])),
            batch.rewards[start:stop].astype(np.float64),
            ends[0],
            ends[1],
        )


def _exact(space: gym.Space, values: Any) -> Any:
    """Values that float32 has rounded to beyond a float64 bound, put back on it: else they would lie outside their space."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _exact(part, values[key]) for key, part in space.spaces.items()}
    assert isinstance(space, gym.spaces.Box)
    for bound in (space.low, space.high):
        values = np.where(values == bound.astype(np.float32), bound, values)
    return values


def _bytes(batch: Dataset) -> int:
    """More than the batch takes in an HDF5 file: 8 bytes a number, and 330 measured for each array and group."""
    numbers = batch.observations.size + batch.actions.size + 2 * batch.transitions
    parts = sum(1 for space in (batch.spec.observation_space, batch.spec.action_space) for _ in leaves(space))
    return 65536 + 8 * numbers + 512 * (2 * parts + 4) * len(batch)


def reserve(path: Path, start: int, size: int) -> None:
    """Make the file system set aside ``size`` bytes of a file from ``start``, where it can.

    Raises:
        OSError: where there is not as much room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, start, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
    finally:
        os.close(descriptor)


def _store(group: h5py.h5g.GroupID, name: str, values: Any) -> None:
    """An array, or a nested dict of them."""
    if isinstance(values, dict):
        inner = h5py.h5g.create(group, name.encode())
        for key, part in values.items():
            _store(inner, key, part)
        return
    rows = np.ascontiguousarray(values)
    kind = h5py.h5t.py_create(rows.dtype, logical=True)
    dataset = h5py.h5d.create(group, name.encode(), kind, h5py.h5s.create_simple(rows.shape))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, rows)


def _attribute(group: h5py.h5g.GroupID, name: bytes, value: int) -> None:
    attribute = h5py.h5a.create(group, name, h5py.h5t.NATIVE_INT64, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.array(value, np.int64))


def _arrow(pa: Any, values: Any, rows: int) -> Any:
    """A column of ``rows`` rows: lists of a fixed size for arrays, a struct for a dict."""
    if isinstance(values, dict):
        parts = [_arrow(pa, part, rows) for part in values.values()]
        return pa.StructArray.from_arrays(parts, names=list(values))
    values = np.asarray(values)
    padded = np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])
    if values.ndim == 1:
        return pa.array(padded)
    width = int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(padded.reshape(-1)), width)
