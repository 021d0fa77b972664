"""What a report is made from: each path given, told apart by what it holds."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dydiff_env.data.minari_io import resolve_dataset
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.kinds import file_kind

READS = (
    "A report reads worlds, Minari datasets, checkpoints (.pt), logs of `train` (.csv), runs of `loop` and "
    "`demo`, and what `fidelity --json` printed (.json)."
)


@dataclass
class Sources:
    """Paths by what they are, in the order given and without repeats."""

    worlds: list[Path] = field(default_factory=list)
    datasets: list[Path] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)
    fidelities: list[Path] = field(default_factory=list)

    def count(self) -> int:
        """How many were found."""
        return sum(len(found) for found in vars(self).values())


def find_sources(given: Sequence[str | Path]) -> Sources:
    """Tell the paths apart; a folder that is nothing by itself is searched one level deep.

    Raises:
        DyDiffError: where nothing was given, or a path holds nothing a report can show.
    """
    if not given:
        raise DyDiffError("There is nothing to report on.", READS, usage=True)
    sources = Sources()
    for entry in given:
        path, before = Path(entry).expanduser(), sources.count()
        if _recognise(path, sources):
            continue
        if path.is_dir():
            for child in sorted(path.iterdir()):
                _recognise(child, sources)
            if sources.count() == before:
                raise DyDiffError(f"{path} holds nothing that a report can show.", READS)
        elif path.exists():
            raise DyDiffError(f"{path} is nothing that a report can show.", READS)
        else:
            _add(sources.datasets, resolve_dataset(str(entry)))  # an id, or an error that names near ones
    return sources


def _recognise(path: Path, sources: Sources) -> bool:
    """File ``path`` under what it is; False where it is nothing known."""
    if path.name.endswith((".partial", ".saving", ".replaced")):  # unfinished, or on its way out
        return False
    if path.is_dir():
        if (path / "world.json").is_file():
            _add(sources.worlds, path)
        elif (path / "metadata.json").is_file() or (path / "data" / "metadata.json").is_file():
            _add(sources.datasets, resolve_dataset(path))
        elif (path / "loop.json").is_file():
            _add(sources.loops, path)
            _recognise(path / "best.pt", sources) or _recognise(path / "agent.pt", sources)
        else:
            return False
        return True
    if not path.is_file():
        return False
    if path.suffix == ".csv" and "updates" in path.open(errors="replace").readline().split(","):
        _add(sources.logs, path)
    elif path.suffix == ".pt" and _is_policy(path):
        _add(sources.checkpoints, path)
        _recognise(path.with_suffix(".csv"), sources) or _recognise(
            path.with_name(path.stem.removesuffix("-best") + ".csv"), sources
        )
    elif path.suffix == ".json" and _is_fidelity(path):
        _add(sources.fidelities, path)
    else:
        return False
    return True


def _is_policy(path: Path) -> bool:
    try:
        file_kind(path)
    except DyDiffError:
        return False
    return True


def _is_fidelity(path: Path) -> bool:
    """Whether ``fidelity --json`` printed it; ``evaluate --json`` prints a list of policies."""
    try:
        policies = read_json(path).get("policies")
        return isinstance(policies, dict) and bool(policies)  # without a simulator there is nothing to show
    except DyDiffError:
        return False


def _add(found: list[Path], path: Path) -> None:
    if path not in found:
        found.append(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DyDiffError: where the file is damaged.
    """
    try:
        document = json.loads(path.read_bytes())  # PowerShell's > writes UTF-16
    except (OSError, ValueError) as error:
        raise DyDiffError(f"{path} cannot be read: {error}.", "Make it again.") from error
    if not isinstance(document, dict):
        raise DyDiffError(f"{path} holds no JSON object.", READS)
    return document


def read_log(path: Path) -> dict[str, list[float]]:
    """The columns of a log of ``train``, as numbers; NaN where a row has none.

    Raises:
        DyDiffError: where it holds other things than numbers.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else ())}
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise DyDiffError(f"{path} is no log of `train`: {error}.", "Move it away, or restore it.") from error


def labels(paths: Sequence[Path]) -> list[str]:
    """Short names that differ: the last part of each path, with as many parents as it takes."""
    whole = [path.resolve() for path in paths]
    # A registered dataset lies in ID/data.
    whole = [path.parent if path.name == "data" and (path / "metadata.json").is_file() else path for path in whole]
    for depth in range(1, 12):
        names = ["/".join(path.with_suffix("").parts[-depth:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
