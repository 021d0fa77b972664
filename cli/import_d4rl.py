"""`dydiff-env import-d4rl`: a legacy D4RL file as a Minari dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.cli.common import DatasetId, Debug, Json, Overwrite, emit, reporting


def import_d4rl(
    file: Annotated[Path, typer.Argument(help="The .hdf5 file of a D4RL dataset.")],
    dataset_id: DatasetId = None,
    out: Annotated[Path | None, typer.Option(help="A folder to write; with an id as well, the id gets a copy.")] = None,
    env: Annotated[
        str | None, typer.Option(help="Today's environment with the same spaces, for example Hopper-v5.")
    ] = None,
    ref_min: Annotated[
        float | None, typer.Option(help="Return of a random policy; D4RL's own where the name tells.")
    ] = None,
    ref_max: Annotated[float | None, typer.Option(help="Return of an expert.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Turn a D4RL file into a Minari dataset, time-outs and terminals kept apart."""
    with reporting(debug):
        from dydiff_env.data.d4rl import import_d4rl as convert
        from dydiff_env.data.registry import Destination
        from dydiff_env.errors import DyDiffError

        if (ref_min is None) != (ref_max is None):
            raise DyDiffError("Only one of --ref-min and --ref-max is given.", "Pass both.", usage=True)
        scores = None if ref_min is None or ref_max is None else (ref_min, ref_max)
        destination = Destination(dataset_id, out, overwrite)
        path, name = destination.resolve()
        result = convert(file, path, name, env=env, scores=scores, overwrite=overwrite)
        destination.register()
        emit({"dataset_id": name} | asdict(result) | {"path": str(result.path)}, as_json)
