"""A run's log: what was lost, and what was earned, after so many updates."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dydiff_env.progress import summary_writer
from dydiff_env.publish import replacing

COLUMNS = (
    "updates",
    "seconds",
    "actor_loss",
    "critic_loss",
    "return_mean",
    "return_std",
    "length_mean",
    "normalized_score",
    "dream_return",
    "dream_std",
    "dream_length",
)


class Log:
    """Rows of a run in a CSV file, and in TensorBoard's format where a folder for it is given.

    Args:
        path: the CSV file; rows later than ``updates`` (written by a run that was killed) are dropped.
        updates: of the run so far; 0 begins a new file.
        tensorboard: folder for event files, or None.
    """

    def __init__(self, path: Path, updates: int = 0, tensorboard: Path | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        if updates and path.is_file():
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["updates"]) <= updates]
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.events = summary_writer()(str(tensorboard)) if tensorboard else None
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        """Append one row and put it on disk."""
        self.rows.append({})
        self.amend(row)

    def amend(self, values: dict[str, Any]) -> None:
        """Add to the last row what has been found out since."""
        self.rows[-1] |= values
        self._write()
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(name, value, self.rows[-1]["updates"])

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self.events:
            self.events.close()

    def _write(self) -> None:
        with replacing(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)


def known(row: dict[str, Any], column: str) -> bool:
    """Whether a row of a log has a value there; read from a file, a missing one is an empty string."""
    return row.get(column) not in (None, "")


def best_row(rows: Sequence[dict[str, Any]], column: str) -> dict[str, Any] | None:
    """The row with the highest finite value there, the first of equals; None where there is none.

    Args:
        rows: of a log; values that were read from a file are strings.
        column: what is compared.
    """
    finite = [row for row in rows if known(row, column) and math.isfinite(float(row[column]))]
    return max(finite, key=lambda row: float(row[column]), default=None)
