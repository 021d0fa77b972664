"""The `dydiff-env` program: commands grouped by what a person does, each imported only when it is run."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dydiff_env import __version__
from dydiff_env.cli.common import running


@dataclass(frozen=True)
class Command:
    """One line of the help: the function `name` (dashes as underscores) of the module of the same name.

    Args:
        name: what is typed.
        panel: the group it is listed in.
        summary: one line.
        examples: whole command lines, shown below the command's own help.
    """

    name: str
    panel: str
    summary: str
    examples: tuple[str, ...]


DATA, WORLD, AGENT, LOOK = "Get data", "Dream", "Train and judge an agent", "Look and learn"

COMMANDS = {
    command.name: command
    for command in (
        Command("collect", DATA, "Record a Minari dataset, with a behaviour policy or your own.", (
            "dydiff-env collect PointMaze_UMaze-v3 --steps 50000 --dataset-id demo/maze-v0",
            "dydiff-env collect Hopper-v5 --tier medium --dataset-id demo/hopper-v0",
            "dydiff-env collect Hopper-v5 --policy ckpt.pt --out hopper.minari",
        )),
        Command("import-d4rl", DATA, "Turn a D4RL HDF5 file into a Minari dataset.", (
            "dydiff-env import-d4rl hopper_medium-v2.hdf5 --dataset-id demo/hopper-v0",
        )),
        Command("import-table", DATA, "Turn a table of logs (CSV, Parquet) into a Minari dataset.", (
            "dydiff-env import-table log.csv --episode run --observations x,y --actions u",
        )),
        Command("mix", DATA, "Join real and synthetic datasets into one, each row's source kept.", (
            "dydiff-env mix --real demo/hopper-v0 --synthetic syn.minari --out mixed.minari",
        )),
        Command("fit", WORLD, "Train a world on a dataset.", (
            "dydiff-env fit --dataset demo/hopper-v0 --out world",
            "dydiff-env fit --dataset hopper.minari --out first --preset quick",
        )),
        Command("export", WORLD, "Write a policy's refined rollouts in a world as a Minari dataset.", (
            "dydiff-env export --policy demo --out syn.minari",
            "dydiff-env export --policy ckpt.pt --out syn.minari",
            "dydiff-env export --policy sac.zip --trust --world world --out syn.minari",
            "dydiff-env export --method synther --world world --out syn.minari",
        )),
        Command("fidelity", WORLD, "Measure how far a world can be trusted, by horizon and refinement.", (
            "dydiff-env fidelity --world world --policy ckpt.pt --plot fidelity.png",
        )),
        Command("train", AGENT, "Train td3bc, cql, diffql or bc on real and synthetic data.", (
            "dydiff-env train td3bc --dataset demo/hopper-v0 --out ckpt.pt",
            "dydiff-env train cql --dataset real.minari --synthetic syn.minari --out cql.pt",
        )),
        Command("improve", AGENT, "Fine-tune any policy in dreams alone.", (
            "dydiff-env improve --policy ckpt-best.pt --out better.pt",
            "dydiff-env improve --policy sac.zip --trust --world world --out better.pt",
        )),
        Command("loop", AGENT, "Train and dream in turns (Algorithm 1).", (
            "dydiff-env loop td3bc --dataset demo/hopper-v0 --world world --out run",
        )),
        Command("evaluate", AGENT, "Returns of a policy in the real environment or in the dream.", (
            "dydiff-env evaluate --policy ckpt.pt --episodes 20",
            "dydiff-env evaluate --policy a.pt --policy b.pt --world world",
        )),
        Command("report", LOOK, "One HTML page: fidelity, rollouts, returns, curves, provenance.", (
            "dydiff-env report world syn.minari ckpt.pt --out report.html",
        )),
        Command("inspect", LOOK, "Say what a world, dataset or checkpoint is and how it was made.", (
            "dydiff-env inspect world",
            "dydiff-env inspect demo/hopper-v0",
        )),
        Command("demo", LOOK, "The whole story on a maze, in minutes.", (
            "dydiff-env demo --out demo",
        )),
    )
}  # fmt: skip


def load(name: str) -> Any:
    """The real command behind `name`. Only now are its imports (torch, MuJoCo, …) paid for."""
    stem = name.replace("-", "_")
    function = getattr(importlib.import_module(f"dydiff_env.cli.{stem}"), stem)
    single = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    examples = "\n\n".join(f"[bold]{line}[/]" for line in COMMANDS[name].examples)
    single.command(name, epilog=f"For example:\n\n{examples}")(function)
    return typer.main.get_command(single)


class LazyGroup(TyperGroup):
    """A group whose help is drawn from COMMANDS; a command is imported when it is called or completed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The called command in place of its stand-in; unknown names are answered with near ones."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        if name is None or stand_in is None:
            return name, stand_in, rest
        running.set(name)
        return name, load(name), [_at_home(argument) for argument in rest]


def _at_home(argument: str) -> str:
    """The argument with a leading ~ spelled out, which shells leave alone in --out=~/x and in quotes."""
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return name + equals + os.path.expanduser(value)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]dydiff-env demo[/]. `dydiff-env COMMAND --help` explains a command.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dydiff-env {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Dream environments from logged data: any policy, rolled out over long horizons in a diffusion world."""


def _stand_in() -> None: ...


for _command in COMMANDS.values():
    app.command(_command.name, help=_command.summary, rich_help_panel=_command.panel)(_stand_in)


def main() -> None:
    """Run the program (the console script's entry)."""
    # Threads that spin while they wait starve each other wherever cores are shared: small networks then train hundreds
    # of times slower. A thousand turns are enough not to fall asleep between two operations. GNU's OpenMP, which torch
    # brings on Linux, reads this when torch is loaded, which no command has done yet.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    app(prog_name="dydiff-env")
