"""`dydiff-env mix`: real and synthetic data in one dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.cli.common import Debug, Json, Overwrite, emit, reporting


def mix(
    real: Annotated[
        list[str], typer.Option(help="Logged data, an id or a folder; may be given several times.")
    ],
    out: Annotated[Path, typer.Option(help="The Minari folder to make.")],
    synthetic: Annotated[
        list[str] | None, typer.Option(help="Exported data; may be given several times.")
    ] = None,
    dataset_id: Annotated[
        str | None, typer.Option(help="Register it too: NAMESPACE/NAME-vK, for minari.load_dataset.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Join real and synthetic datasets into one; infos/source keeps them apart."""
    with reporting(debug):
        from dydiff_env.synthesis.mix import mix as run

        emit(run(real, synthetic or (), out, overwrite=overwrite, dataset_id=dataset_id), as_json)
