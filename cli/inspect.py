"""`dydiff-env inspect`: what a world, a dataset or a policy file is, and how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.cli.common import Debug, Json, console, emit, reporting
from dydiff_env.evaluation.documents import dataset_document, lines, policy_document, world_document


def inspect(
    path: Annotated[str, typer.Argument(help="A world, a dataset (folder or Minari id), or a policy file.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what something is and how it was made. Nothing in it is executed."""
    with reporting(debug):
        target = Path(path)
        if (target / "world.json").is_file():
            document = world_document(target)
        elif target.is_file():
            document = policy_document(target)
        else:
            document = dataset_document(path)
        if as_json:
            emit(document, True)
            return
        fidelity = document.get("record", {}).pop("fidelity", None)
        if fidelity:
            from dydiff_env.cli.fit import fidelity_table

            console.print(fidelity_table(fidelity))
        if "preset" in document:  # its name and what is a number; --json has the parts
            document["preset"] = {key: value for key, value in document["preset"].items() if not isinstance(value, dict)}
        emit(lines(document), False)
