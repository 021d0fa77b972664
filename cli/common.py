"""What every command shares: options, the JSON document, and errors in one line with their fix."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from dydiff_env.errors import DyDiffError

console = Console()  # for people, on stdout
log = Console(stderr=True)  # progress and warnings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]


def pick_device(name: str) -> torch.device:
    """The torch device for ``--device``.

    Raises:
        DyDiffError: for an unknown name, or cuda where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise DyDiffError(f"--device is {name!r}.", "Use auto, cpu or cuda.", usage=True)
    if name == "cuda" and not torch.cuda.is_available():
        raise DyDiffError("--device cuda, but torch sees no CUDA device.", "Use --device auto.", usage=True)
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Turn a DyDiffError into one line, its fix and an exit code: 1 failed, 2 wrong usage."""
    try:
        yield
    except DyDiffError as error:
        if debug:
            raise
        log.print(f"[bold red]error:[/] {error.problem}", highlight=False, soft_wrap=True)
        if error.fix:
            log.print(f"[bold]fix:[/] {error.fix}", highlight=False, soft_wrap=True)
        raise typer.Exit(2 if error.usage else 1) from None


def emit(document: dict[str, Any], as_json: bool) -> None:
    """Print the result: as one JSON document, or as lines for a person."""
    if as_json:
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    for key, value in document.items():
        console.print(f"[bold]{key.replace('_', ' ')}[/]: {value}", highlight=False, soft_wrap=True)
