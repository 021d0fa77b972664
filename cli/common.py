"""What every command shares: options, the JSON document, and errors in one line with their fix."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dydiff_env.errors import DyDiffError, Note, unknown

if TYPE_CHECKING:
    import torch

console = Console()  # for people, on stdout
log = Console(stderr=True)  # progress and warnings
TABLES = {  # which columns of a result's lists a person sees
    "rounds": ("round", "updates", "synthetic_rows", "dream_return", "return_mean", "normalized_score"),
    "sources": ("dataset_id", "kind", "share"),
}
FULL = "The disk may be full: free some and run the same command again; what is finished is kept where --resume or `fit` finds it."
STOPPED = {  # what becomes of a command that is stopped
    "fit": "Run the same line again to go on.",
    **dict.fromkeys(("export", "train", "improve", "loop"), "What is finished is kept: go on with --resume, in place of --overwrite."),
    **dict.fromkeys(("collect", "import-d4rl", "import-table", "mix"), "Nothing was kept."),
}
running: ContextVar[str] = ContextVar("running", default="")  # the command that was called

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; notes and errors go to stderr.")]
SEEDS = 2**32  # NumPy's old generators, which Stable-Baselines3 seeds, take no larger one
Seed = Annotated[int, typer.Option("--seed", min=0, max=SEEDS - 1, help="Seed of every random draw.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Trust = Annotated[bool, typer.Option("--trust", help="Allow policy formats that can run code on loading.")]
VecNormalize = Annotated[Path | None, typer.Option(help="VecNormalize statistics of an SB3 policy (needs --trust).")]
EnvEval = Annotated[bool, typer.Option("--env-eval", help="Evaluate in the data's environment.")]
Env = Annotated[str | None, typer.Option(help="Evaluate in this environment instead.")]
DatasetId = Annotated[str | None, typer.Option(help="NAMESPACE/NAME-vK; `minari.load_dataset` will find it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]


def pick_device(name: str) -> torch.device:
    """The torch device for ``--device``.

    Raises:
        DyDiffError: for an unknown name, or cuda where there is none.
    """
    import torch  # a second's work that `--help` should not wait for

    if name not in ("auto", "cpu", "cuda"):
        raise unknown("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise DyDiffError("--device cuda, but torch sees no CUDA device.", "Use --device auto.", usage=True)
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def check_plot(path: Path) -> None:
    """Make sure that a picture can be drawn to a file, before minutes of work for it.

    Raises:
        DyDiffError: without matplotlib, for an ending that it does not know, or a folder that is not there or may not be written to.
    """
    from dydiff_env.evaluation.picture import picture

    known = picture(1, 1)[0].canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise DyDiffError(f"{path} would be a picture of no known kind.", f"End its name in .{', .'.join(sorted(known))}.", usage=True)
    folder = path.expanduser().parent
    if not folder.is_dir():
        raise DyDiffError(f"There is no folder {folder}.", "Make it first, or put the plot elsewhere.", usage=True)
    if not os.access(folder, os.W_OK):
        raise DyDiffError(f"Nothing may be written to {folder}.", "Put the plot elsewhere.", usage=True)


def check_statistics(vecnormalize: Path | None, policies: list[str]) -> None:
    """Make sure that VecNormalize statistics are of the policy they are used for.

    Raises:
        DyDiffError: where there are several policies.
    """
    if vecnormalize and len(policies) > 1:
        raise DyDiffError("--vecnormalize is of one policy.", "Give each policy a call of its own.", usage=True)


def unwritten(error: RuntimeError) -> bool:
    """Whether torch could not write a file; it does not say why."""
    return "inline_container" in str(error) or "PytorchStreamWriter" in str(error)


@contextmanager
def _notes() -> Iterator[None]:
    """Inside, our own warnings are lines, without the place in the code that Python adds."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Note):
                log.print(f"[yellow]note:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
            else:
                usual(message, category, *where, **more)

        warnings.showwarning = show
        yield


@contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Turn a DyDiffError into one line, its fix and an exit code: 1 failed, 2 wrong usage.

    The operating system's own refusals (a full disk, a folder one may not write) are reported the same way.
    """
    try:
        with _notes():
            yield
    except KeyboardInterrupt:
        log.print(f"[bold]stopped.[/] {STOPPED.get(running.get(), '')}", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise  # whoever was reading has read enough
    except (DyDiffError, OSError, RuntimeError) as error:
        if debug or (isinstance(error, RuntimeError) and not unwritten(error)):
            raise
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            where = f": {error.filename}" if error.filename else ""
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            error = DyDiffError(f"{reason}{where}.", FULL if full else "Run again with --debug to see where.")
        elif not isinstance(error, DyDiffError):
            error = DyDiffError("A file could not be written to its end.", FULL)
        log.print(f"[bold red]error:[/] {escape(error.problem)}", highlight=False, soft_wrap=True)
        if error.fix:
            log.print(f"[bold]fix:[/] {escape(error.fix)}", highlight=False, soft_wrap=True)
        raise typer.Exit(2 if error.usage else 1) from None


def emit(document: dict[str, Any], as_json: bool) -> None:
    """Print the result: as one JSON document, or for a person, with what was made and what to do next."""
    if as_json:
        json.dump(_finite(document), sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
        return
    for key, value in document.items():
        if key in TABLES and value:
            console.print(_table(value, TABLES[key]))
        elif not isinstance(value, dict) and not (isinstance(value, list) and any(isinstance(v, (list, dict)) for v in value)):
            line = f"[bold]{key.replace('_', ' ')}[/]: {escape(_short(value))}"
            console.print(line, highlight=False, soft_wrap=True)
    close(document)


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def close(document: dict[str, Any]) -> None:
    """The last lines of a command: what it made, and the lines that go on from there."""
    from dydiff_env.cli.summary import summary

    made, following = summary(running.get(), document)
    if made:
        console.print(f"[bold green]Done.[/] {escape(made)}", highlight=False, soft_wrap=True)
    for i, line in enumerate(following):
        console.print(f"{'Next:' if i == 0 else '     '} [bold]{escape(line)}[/]", highlight=False, soft_wrap=True)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Table:
    """Those of the columns that a row has."""
    table = Table()
    shown = [column for column in columns if any(row.get(column) is not None for row in rows)]
    for column in shown:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(escape(_short(row.get(column))) for column in shown))
    return table


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)
