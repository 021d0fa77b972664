"""`dydiff-env import-table`: a table of logs as a Minari dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.cli.common import DatasetId, Debug, Json, Overwrite, emit, reporting


def import_table(
    file: Annotated[Path, typer.Argument(help="A .csv, .parquet or .feather file.")],
    episode: Annotated[str, typer.Option(help="The column that tells episodes apart.")],
    observations: Annotated[str, typer.Option(help="Columns, with commas between; 'joint_*' stands for all such.")],
    actions: Annotated[str, typer.Option(help="Columns, the same way.")],
    reward: Annotated[str, typer.Option(help="A column.")] = "reward",
    terminated: Annotated[
        str | None, typer.Option(help="The column that is 1 in the last row of an episode that is over for good.")
    ] = None,
    next_observations: Annotated[
        str | None, typer.Option(help="Columns of what each row's step led to, where the table has them.")
    ] = None,
    rows: Annotated[
        str, typer.Option(help="steps; states: an episode's last row only says where it ended; auto: the latter where that has no action.")
    ] = "auto",
    low: Annotated[float | None, typer.Option(help="Lowest action; each one's lowest logged by default.")] = None,
    high: Annotated[float | None, typer.Option(help="Highest action.")] = None,
    env: Annotated[str | None, typer.Option(help="An environment with the same spaces, to evaluate in later.")] = None,
    dataset_id: DatasetId = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder to write; with an id as well, the id gets a copy. By default beside FILE.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Turn a table of logs into a Minari dataset, one row a step or one row a state."""
    with reporting(debug):
        from dydiff_env.data.registry import Destination
        from dydiff_env.data.table import Columns
        from dydiff_env.data.table import import_table as convert
        from dydiff_env.errors import DyDiffError
        from dydiff_env.publish import check_name

        if (low is None) != (high is None):
            raise DyDiffError("Only one of --low and --high is given.", "Pass both.", usage=True)
        bounds = None if low is None or high is None else (low, high)
        seen, done, after = ([name.strip() for name in (names or "").split(",") if name.strip()]
                             for names in (observations, actions, next_observations))  # fmt: skip
        check_name(file)
        beside = file.with_suffix(".minari") if dataset_id is None else None
        destination = Destination(dataset_id, out or beside, overwrite)
        path, name = destination.resolve()
        columns = Columns(episode, seen, done, reward, terminated, after)
        result = convert(file, path, name, columns, rows=rows, bounds=bounds, env=env, overwrite=overwrite)
        destination.register()
        emit({"dataset_id": name} | asdict(result) | {"path": str(result.path)}, as_json)
