"""Tables of logs (CSV, Parquet, Feather) as episodes: one row a step, or one row a state."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dydiff_env.data.d4rl import Import
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.minari_writer import write_dataset
from dydiff_env.data.simulator import describe
from dydiff_env.errors import DyDiffError, Note, meant, said, unknown

ROWS = ("auto", "steps", "states")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what, by one name or several. A name may have wildcards (``joint_*``): it stands for all such columns,
    in the table's order.

    Args:
        episode: tells episodes apart, by numbers or words. Rows of one need not lie together, but stand in the order of time.
        observations: of which there are O.
        actions: A of them.
        reward: of the row's step.
        terminated: 1 or true in an episode's last row where it is over for good (with one row a state, the row before will do). None: no
            episode ends so.
        next_observations: O of them, where each row also says what its step led to.
    """

    episode: str
    observations: str | Sequence[str]
    actions: str | Sequence[str]
    reward: str
    terminated: str | None = None
    next_observations: str | Sequence[str] = ()


def import_table(file: str | Path, path: str | Path, dataset_id: str, columns: Columns, *, rows: str = "auto",
                 bounds: tuple[float, float] | None = None, env: str | None = None, overwrite: bool = False) -> Import:
    """Write a table of logs as a Minari folder.

    Every step leads to a state. A table with one row a *state* gives an episode's last state a row of its own, whose action and reward
    are not read. One with one row a *step* does not, unless it has columns for the next observation: without them the last step of an
    episode that ran out of time is dropped, its state being the final one, and a terminal state, which is unknown, repeats the state
    before it.

    Args:
        file: .csv with names in its first row, .parquet or .feather.
        path: the Minari folder to make.
        dataset_id: the id to store.
        columns: what they hold.
        rows: "states" or "steps", as above; "auto" takes the former where the last row of every episode has no action, and the latter
            where that of none has.
        bounds: lowest and highest action, for all; by default each one's logged range.
        env: id of an environment with the same spaces; without it the dataset names none.
        overwrite: replace ``path``.

    Raises:
        DyDiffError: where the file cannot be read, a column is missing or not of numbers, a cell is blank, rows can be taken both ways,
            or ``env`` has other spaces.
    """
    file = Path(file).expanduser()
    if rows not in ROWS:
        raise unknown("kind of row", rows, ROWS)
    table = _read(file)
    observations, actions = (_numbers(table, names, file) for names in (columns.observations, columns.actions))
    rewards = _numbers(table, columns.reward, file)[:, 0]
    over = _flags(table, columns.terminated, file) if columns.terminated else np.zeros(len(rewards), bool)
    after = _numbers(table, columns.next_observations, file) if columns.next_observations else None
    if after is not None and after.shape != observations.shape:
        raise DyDiffError(f"{after.shape[1]} columns of next observations, but {observations.shape[1]} of observations.",
                          "Name as many, in the same order.", usage=True)
    groups = _groups(table, columns.episode, file)
    if after is not None and rows == "states":
        raise DyDiffError("Where a row says what it led to, it is a step's.", "Leave out the next observations, or --rows.", usage=True)
    states = after is None and (rows == "states" or (rows == "auto" and _ends_without_action(groups, actions, file)))
    final = 2 if states else 1  # rows of an episode that may say that it is over
    if any(over[group[:-final]].any() for group in groups):
        raise DyDiffError(f"The column {columns.terminated!r} of {file.name} is 1 before the last row of an episode.",
                          f"Check it, and the column {columns.episode!r}: what goes on after an end is another episode.", usage=True)

    def episodes() -> Iterator[Episode]:
        for group in groups:
            seen, end = observations[group], bool(over[group[-final:]].any())
            if after is not None:
                seen = np.concatenate([seen, after[group[-1:]]])
            elif end and not states:
                seen = np.concatenate([seen, seen[-1:]])
            steps = group[: len(seen) - 1]
            yield Episode(seen, actions[steps], rewards[steps], end)

    found = list(episodes())
    kept = [episode for episode in found if len(episode.rewards)]
    if not kept:
        raise DyDiffError(f"{file} has no episode with a step and the state it led to.",
                          f"Check the column {columns.episode!r}, which tells episodes apart.", usage=True)
    spec = _spec(kept, dataset_id, bounds, env)
    folder = write_dataset(path, Dataset.from_episodes(spec, kept), overwrite=overwrite, description=f"Imported from {file.name}",
                           provenance={"command": "import-table", "file": file.name, "rows": "states" if states else "steps"})
    terminated, guessed = sum(episode.terminated for episode in kept), after is None and not states
    return Import(folder, len(kept), sum(len(episode.rewards) for episode in kept), terminated,
                  dropped=(len(found) - terminated) * guessed, repeated=terminated * guessed)


def _read(file: Path) -> Any:
    """The file as a pyarrow Table."""
    import pyarrow as pa  # takes a while
    from pyarrow import csv, feather, parquet

    blank = csv.ConvertOptions(strings_can_be_null=True)
    readers = {
        ".csv": lambda file: csv.read_csv(file, convert_options=blank),
        ".parquet": parquet.read_table,
        ".feather": feather.read_table,
    }
    if not file.is_file():
        raise DyDiffError(f"There is no file {file}.", f"Give a {', '.join(readers)} file.", usage=True)
    if file.suffix.lower() not in readers:
        raise DyDiffError(f"{file.name} has no table's ending.", f"Give a {', '.join(readers)} file.", usage=True)
    try:
        table = readers[file.suffix.lower()](file)
        _ = table.column_names  # decoded only now
        return table
    except UnicodeDecodeError as error:
        raise DyDiffError(f"{file} is not written in UTF-8.", "Save it as UTF-8.") from error
    except (pa.ArrowException, OSError) as error:
        raise DyDiffError(f"{file} cannot be read: {said(error)}.",
                          "A CSV's first line names its columns, and every other has as many cells.") from error


def _column(table: Any, name: str, file: Path) -> Any:
    if table.column_names.count(name) != 1:
        trouble = "two columns" if name in table.column_names else "no column"
        raise DyDiffError(f"{file.name} has {trouble} {name!r}.",
                          f"{meant(name, table.column_names)}It has {', '.join(table.column_names)}.", usage=True)
    return table[name].combine_chunks()


def _numbers(table: Any, names: str | Sequence[str], file: Path) -> np.ndarray:
    """(rows, columns) float32; a blank cell is NaN."""
    found = []
    names = [names] if isinstance(names, str) else names
    known = table.column_names  # a name as it stands comes first: x[0] is a pattern, too
    for name in (column for wanted in names for column in (wanted not in known and fnmatch.filter(known, wanted)) or [wanted]):
        values = _column(table, name, file).to_numpy(zero_copy_only=False)
        if values.dtype.kind not in "fiu":
            raise DyDiffError(f"The column {name!r} of {file.name} holds other things than numbers.",
                              "Name columns of numbers; leave cells blank that have none.", usage=True)
        found.append(values.astype(np.float32))
    if not found:
        raise DyDiffError("No columns are named for observations or actions.", "Name them.", usage=True)
    return np.stack(found, 1)


def _flags(table: Any, name: str, file: Path) -> np.ndarray:
    """(rows,) bool of a column of 0 and 1, or false and true; blank is no."""
    column = _column(table, name, file)
    values = np.array([bool(value) if value in (0, 1, None) else np.nan for value in column.to_pylist()], float)
    if np.isnan(values).any():
        raise DyDiffError(f"The column {name!r} of {file.name} holds other things than 0 and 1, or false and true.",
                          "Write 1 in the last row of an episode that is over for good.", usage=True)
    return values.astype(bool)


def _groups(table: Any, name: str, file: Path) -> list[np.ndarray]:
    """The rows of each episode, in the order in which episodes begin."""
    column = _column(table, name, file)
    if column.null_count or not len(column):
        raise DyDiffError(f"The column {name!r} of {file.name} is blank in {column.null_count} of {len(column)} rows.",
                          "Say which episode each row is of.", usage=True)
    codes = column.dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _ends_without_action(groups: list[np.ndarray], actions: np.ndarray, file: Path) -> bool:
    """Whether each episode's last row only says where it ended."""
    blank = np.all(np.isnan(actions[[group[-1] for group in groups]]), 1)
    if blank.any() and not blank.all():
        raise DyDiffError(f"{int(blank.sum())} of the {len(blank)} episodes in {file.name} end in a row without an action.",
                          "Pass --rows states where an episode's last row only says where it ended, else fill these cells.", usage=True)
    return bool(blank.all())


def _spec(episodes: Sequence[Episode], dataset_id: str, bounds: tuple[float, float] | None, env: str | None) -> DatasetSpec:
    size, width = episodes[0].observations.shape[1], episodes[0].actions.shape[1]
    if env is not None:
        if bounds is not None:
            raise DyDiffError(f"{env} says what bounds its actions have.", "Leave out --low and --high, or --env.", usage=True)
        spec = replace(describe(env), dataset_id=dataset_id)
        if (spec.observation_size, spec.action_size) != (size, width):
            raise DyDiffError(f"{size} observations and {width} actions are named; {env} has {spec.observation_size} and "
                              f"{spec.action_size}.", "Name the environment that was logged, and its columns in its order.", usage=True)
        return spec
    if bounds is None:
        low, high = (of([of(episode.actions, 0) for episode in episodes], 0) for of in (np.nanmin, np.nanmax))
        said = ", ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))
        warnings.warn(f"Actions are taken to be bounded by what was logged: {said}. --low and --high would say better.", Note, stacklevel=3)
    else:
        low, high = (np.full(width, bound, np.float32) for bound in bounds)
    if not (low < high).all():
        raise DyDiffError("An action's lowest value is not below its highest.",
                          "Pass --low and --high; leave out an action that never changes.", usage=True)
    return DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (size,), np.float32), gym.spaces.Box(low, high, dtype=np.float32), None, dataset_id)
