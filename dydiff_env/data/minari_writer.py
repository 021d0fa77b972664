"""Minari folders written batch by batch, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import minari
import numpy as np
from minari.serialization import serialize_space

from dydiff_env.data.dataset import ARRAYS, Dataset, DatasetSpec, Episode
from dydiff_env.data.episode_files import FORMATS
from dydiff_env.data.flattening import slashed
from dydiff_env.data.registry import check_dataset_id
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError, unknown
from dydiff_env.lock import sole_writer
from dydiff_env.publish import DATASET, check_free, check_name, publish

BLOCK = 50_000  # transitions held in memory before they are written


class MinariWriter:
    """Streams episodes into ``PATH.partial`` and publishes them as the Minari folder ``PATH`` by one rename.

    Every ``append`` is one file that appears whole or not at all, so a killed run loses at most the batch it
    was at: open the writer again with ``resume=True``, look at ``parts`` and ``notes``, and go on.

    Args:
        path: the folder to make; ``minari.MinariDataset(path)`` will open it.
        spec: spaces, environment, reference scores and the id to store. Values are written in the spaces'
            dtypes.
        overwrite: replace an existing ``path`` (at the moment of publishing) and an unfinished
            ``PATH.partial``.
        resume: go on with ``PATH.partial`` where there is one.
        resumable: leave ``PATH.partial`` when a ``with`` block fails; otherwise it is removed.
        data_format: Minari's: ``"hdf5"`` or ``"arrow"``.

    Raises:
        DyDiffError: where ``path`` exists and ``overwrite`` is off, where an unfinished one is in the way,
            the id is not a Minari id, the format is unknown or cannot hold a part's name.
    """

    def __init__(self, path: str | Path, spec: DatasetSpec, *, overwrite: bool = False, resume: bool = False,
                 resumable: bool = False, data_format: str = "hdf5") -> None:
        if data_format not in FORMATS:
            raise unknown("data format", data_format, FORMATS)
        self.data_format = data_format
        self.path, self.spec, self.resumable = Path(path).expanduser(), spec, resumable or resume
        check_name(self.path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        check_dataset_id(spec.dataset_id)
        if data_format == "hdf5" and (key := slashed(spec.observation_space)):
            raise DyDiffError(f"The observations' part {key!r} has a slash in its name, which HDF5 takes for a folder.",
                              "Rename it, or have another format written where there is a choice (export --format arrow).", usage=True)
        check_free(self.path, overwrite, DATASET)
        if self.partial.exists() and not resume:
            if not overwrite:
                raise DyDiffError(f"{self.partial} is there: an unfinished run, or one still going.",
                                  f"{'Go on with --resume, or start' if self.resumable else 'Start'} anew with --overwrite.")
            shutil.rmtree(self.partial)
        self._folder = self.partial / "parts"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.notes: list[dict[str, Any]] = []
        self.trajectories = self.transitions = 0
        self._held, self._held_transitions = list[Episode](), 0
        self._take_up()

    @property
    def parts(self) -> int:
        """Batches on disk."""
        return len(self.notes)

    def append(self, batch: Trajectories | Dataset | Sequence[Episode],
               note: dict[str, Any] | None = None) -> None:
        """Write one batch of episodes.

        Args:
            batch: rollouts, a dataset, or episodes of at least one step; flattened, in environment units.
            note: JSON-ready facts kept with the batch until publishing, back in ``notes`` after a resume.
        """
        self._write_held()  # they came before
        if isinstance(batch, Trajectories):
            batch = Dataset.from_trajectories(self.spec, batch)
        elif not isinstance(batch, Dataset):
            batch = Dataset.from_episodes(self.spec, batch)
        arrays = {name: getattr(batch, name) for name in ARRAYS}
        unfinished = self._folder / "unfinished.npz"
        with unfinished.open("wb") as file:
            np.savez(file, note=np.array(json.dumps(note or {})), **arrays)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self._folder / f"part-{self.parts:06d}.npz")
        self._count(batch.offsets, note or {})

    def take(self, episode: Episode) -> None:
        """Add one episode of at least one step; about ``BLOCK`` transitions of such are a batch.

        Args:
            episode: flattened, in environment units.
        """
        self._held.append(episode)
        self._held_transitions += len(episode.rewards)
        if self._held_transitions >= BLOCK:
            self._write_held()

    def publish(self, *, algorithm_name: str = "", description: str = "", author: str | Iterable[str] = (),
                provenance: dict[str, Any] | None = None) -> Path:
        """Turn the batches into the Minari folder and give it its name.

        Args:
            algorithm_name: Minari metadata.
            description: Minari metadata.
            author: Minari metadata; one name, or several.
            provenance: how the data was made, JSON-ready; stored as JSON under ``dydiff_env`` in the
                metadata.

        Returns:
            The folder.

        Raises:
            DyDiffError: where no episode was appended.
        """
        self._write_held()
        if not self.trajectories:
            raise DyDiffError(f"{self.path} would be empty: no trajectory was kept.", "Keep more of them.")
        self._unwrite()  # what a run that was killed just here left
        try:
            FORMATS[self.data_format](self.partial, self._batches())
        except OSError:  # a full disk: leave room
            self._unwrite()
            raise
        size = sum(file.stat().st_size for file in self.partial.rglob("*")
                   if file.is_file() and file.parent != self._folder)
        metadata: dict[str, Any] = {
            "total_episodes": self.trajectories, "total_steps": self.transitions, "data_format": self.data_format,
            "jpeg_encoding": True,
            "observation_space": serialize_space(self.spec.observation_space),
            "action_space": serialize_space(self.spec.action_space),
            "dataset_id": self.spec.dataset_id, "minari_version": minari.__version__, "code_permalink": "",
            "author": [author] if isinstance(author, str) else list(author), "algorithm_name": algorithm_name, "description": description,
            "dataset_size": round(size / 1e6, 1)}
        optional = {"env_spec": self.spec.env_spec, "ref_min_score": self.spec.ref_min_score,
                    "ref_max_score": self.spec.ref_max_score,
                    "dydiff_env": json.dumps(provenance) if provenance else None}
        metadata |= {key: value for key, value in optional.items() if value is not None}
        (self.partial / "metadata.json").write_text(json.dumps(metadata))
        publish(self.partial, self.path)
        shutil.rmtree(self.path / "parts")  # not before: until the name is given, a killed run goes on from them
        return self.path

    def discard(self) -> None:
        """Remove what was written so far."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def __enter__(self) -> MinariWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is not None and not self.resumable:
            self.discard()

    def _take_up(self) -> None:
        """Count the batches on disk; a damaged one is dropped with those after it, and is written again."""
        files = self._files()
        for i, file in enumerate(files):
            try:
                if file.name != f"part-{i:06d}.npz":
                    raise ValueError("one before it is missing")
                with np.load(file) as part:  # reading an array verifies its checksum
                    arrays = {name: part[name] for name in ARRAYS}
                    note = json.loads(str(part["note"]))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                for damaged in files[i:]:
                    damaged.unlink()
                return
            self._count(arrays["offsets"], note)

    def _write_held(self) -> None:
        held, self._held, self._held_transitions = self._held, [], 0
        if held:
            self.append(held)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.npz"))

    def _count(self, offsets: np.ndarray, note: dict[str, Any]) -> None:
        self.trajectories += len(offsets) - 1
        self.transitions += int(offsets[-1])
        self.notes.append(note)

    def _unwrite(self) -> None:
        """Remove all but the batches."""
        for file in self.partial.iterdir():
            if file != self._folder:
                shutil.rmtree(file) if file.is_dir() else file.unlink()

    def _batches(self) -> Iterator[Dataset]:
        for part in self._files():
            with np.load(part) as arrays:
                yield Dataset(self.spec, *(arrays[name] for name in ARRAYS))


def write_dataset(path: str | Path, dataset: Dataset, *, overwrite: bool = False, **metadata: Any) -> Path:
    """Write a whole dataset as a Minari folder; ``metadata`` goes to ``MinariWriter.publish``."""
    check_name(path := Path(path).expanduser())
    with sole_writer(path), MinariWriter(path, dataset.spec, overwrite=overwrite) as writer:
        for block in dataset.blocks():
            writer.append(block)
        return writer.publish(**metadata)
