"""What a loop has dreamt so far and still trains on: the kept rollouts of its latest rounds."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.publish import replacing


@dataclass
class SyntheticBuffer:
    """The kept rollouts of the latest rounds, one file a round, never more than ``capacity`` transitions.

    Args:
        folder: where the rounds lie, as ``round-0001.npz``.
        capacity: most transitions; the newest round always stays.
        rounds: the rounds held now, oldest first.
    """

    folder: Path
    capacity: int
    rounds: dict[int, Trajectories] = field(default_factory=dict)

    def add(self, index: int, kept: Trajectories) -> None:
        """Put round ``index`` on disk by one rename, and let the oldest ones go."""
        # What an earlier round pushed out is needed no more; what this one pushes out is, until it has ended.
        for file in self.folder.glob("round-*.npz"):
            if self.rounds and int(file.stem.removeprefix("round-")) < min(self.rounds):
                file.unlink()
        with replacing(self._path(index)) as partial, partial.open("wb") as stream:
            np.savez(stream, **{name: part for name, part in vars(kept).items() if part is not None})
        self.rounds[index] = kept
        self._shrink()

    def restore(self, last: int) -> None:
        """Read back what the buffer held after round ``last``; later rounds are unfinished and are dropped."""
        for index in range(1, last + 1):
            if self._path(index).is_file():
                try:
                    with np.load(self._path(index), allow_pickle=False) as arrays:
                        self.rounds[index] = Trajectories(**arrays)
                except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
                    raise DyDiffError(f"{self._path(index)} is damaged.", "Restore it, or begin a new loop with --overwrite.") from error
        self._shrink()

    def _shrink(self) -> None:
        while (
            len(self.rounds) > 1 and sum(int(t.lengths.sum()) for t in self.rounds.values()) > self.capacity
        ):
            del self.rounds[min(self.rounds)]

    def _path(self, index: int) -> Path:
        return self.folder / f"round-{index:04d}.npz"
