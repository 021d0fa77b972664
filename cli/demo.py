"""`dydiff-env demo`: logged data → world → dreams → a better agent, on a maze, with pictures."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from dydiff_env.cli.common import Debug, Json, Overwrite, Seed, close, console, emit, log, reporting
from dydiff_env.errors import DyDiffError
from dydiff_env.progress import announce

if TYPE_CHECKING:
    from dydiff_env.world.presets import Preset
    from dydiff_env.world.world import World


@dataclass(frozen=True)
class DemoConfig:
    """How large the demo is.

    Args:
        env_id: a PointMaze of gymnasium-robotics.
        transitions: logged ones.
        updates: of each agent.
        seeds: agents of each kind.
        starts: dreams of the export's round.
        pictured: rollouts in the picture.
        episodes: real ones, to judge each agent by.
        scale: of the world's training, 1 for the size below.
    """

    env_id: str = "PointMaze_UMaze-v3"
    transitions: int = 60_000
    updates: int = 5_000
    seeds: int = 3
    starts: int = 1024
    pictured: int = 48
    episodes: int = 32
    scale: float = 1.0


NEEDS = {"gymnasium_robotics": "gymnasium-robotics", "matplotlib": "matplotlib", "plotly": "plotly"}  # module: package
STEPS_ALONE, STEPS_OF_AN_AGENT = 47_000, 14_300
"""What the demo takes without its agents, and one of them, in steps of a small network. Measured; see ``seconds_expected``."""

TINY = DemoConfig("PointMaze_UMaze-v3", 3_000, 60, 1, 32, 8, 2, 0.02)
"""Small enough for a test: it shows that every step runs, not how good they get."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the data, world, agents and pictures.")] = Path(
        "demo"
    ),
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Seconds instead of minutes, to see that it runs.")
    ] = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The whole story on a maze, in minutes: collect, fit, train, export, train on the mix, evaluate, report.

    Each step is printed with the command one would use for it.
    """
    with reporting(debug):
        missing = [name for module, name in NEEDS.items() if importlib.util.find_spec(module) is None]
        if missing:
            raise DyDiffError(f"The demo needs {', '.join(missing)}.", 'Run `pip install "dydiff-env[demo]"`.')
        if out.exists() and not overwrite:
            raise DyDiffError(f"{out} exists.", "Choose another --out, or replace it with --overwrite.", usage=True)
        if out.exists() and not (out / "demo.json").is_file() and any(out.iterdir()):
            raise DyDiffError(f"{out} is not a demo's folder.", "Choose another --out.", usage=True)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        (out / "demo.json").write_text("{}")
        if not (tiny or as_json):
            announce("demo", seconds_expected(DemoConfig.seeds))
        document = _Demo(out, TINY if tiny else DemoConfig(), seed, show=not as_json).run()
        emit(document, True) if as_json else _show(document)


def seconds_expected(seeds: int) -> float:
    """How long the demo will take, from how long this machine takes for some steps of a small network."""
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256))
    optimizer, rows = torch.optim.Adam(network.parameters(), fused=True), torch.zeros(256, 256)

    def step() -> None:
        optimizer.zero_grad()
        network(rows).square().mean().backward()
        optimizer.step()

    step()  # warms up
    began = time.perf_counter()
    for _ in range(200):
        step()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    turns = -(-seeds // min(seeds, cores))  # agents are trained side by side, one a core
    return (STEPS_ALONE + 2 * turns * STEPS_OF_AN_AGENT) * (time.perf_counter() - began) / 200


def world_preset(scale: float) -> Preset:
    """A world that fits in two minutes on a laptop: the default's form, smaller and trained for less."""
    from dydiff_env.world.presets import FAST, AnchorConfig
    from dydiff_env.world.sight import WAVES
    from dydiff_env.world.transformer import TransformerConfig

    def steps(config: Any, count: int) -> Any:
        count = max(20, round(count * scale))
        return replace(config, steps=count, evaluate_every=max(1, count // 20))

    return replace(
        FAST,
        name="demo",
        horizon=64,
        dynamics=replace(FAST.dynamics, members=4, elites=3, width=128, depth=3, frequencies=WAVES[-1], memory=False),  # walls, seen whole
        dynamics_training=steps(FAST.dynamics_training, 2_000),
        reward_training=steps(FAST.reward_training, 1_500),
        termination_training=steps(FAST.termination_training, 500),
        behavior_training=steps(FAST.behavior_training, 800),
        anchors=AnchorConfig(windows=max(256, round(8_000 * scale))),
        network=TransformerConfig(width=64, blocks=3),
        denoiser_training=steps(FAST.denoiser_training, 1_000),
    )


class _Demo:
    """The steps, in order; each leaves its result in the folder."""

    def __init__(self, out: Path, config: DemoConfig, seed: int, show: bool) -> None:
        self.out, self.config, self.seed, self.show = out, config, seed, show
        self.seconds: dict[str, float] = {}

    def step(self, name: str, command: str, work: Callable[[], Any]) -> Any:
        """Say what is done and with which command one would do it by hand, do it, and take the time."""
        if self.show:
            log.print(f"[bold]{name}[/]  [dim]{command}[/]", highlight=False, soft_wrap=True)
        begun = time.perf_counter()
        result = work()
        self.seconds[name] = round(time.perf_counter() - begun, 1)
        return result

    def run(self) -> dict[str, Any]:
        """Everything; returns the figures."""
        from dydiff_env.agents import Schedule, load_agent
        from dydiff_env.agents.seeds import Run, train_seeds
        from dydiff_env.data.collect import CollectConfig, collect_maze
        from dydiff_env.data.minari_io import load_dataset
        from dydiff_env.data.registry import Destination
        from dydiff_env.evaluation.report import report
        from dydiff_env.evaluation.scores import Episodes, environment_of, evaluate_returns
        from dydiff_env.synthesis.export import export
        from dydiff_env.world.world import World

        out, config, seed = self.out, self.config, self.seed
        real, world_path, syn = out / "real.minari", out / "world", out / "syn.minari"
        seeds = [seed + i for i in range(config.seeds)]
        every = max(1, config.updates // 5)

        self.step("collect", f"dydiff-env collect {config.env_id} --keep-goal --steps {config.transitions} --out {real}",
                  lambda: collect_maze(config.env_id, Destination(out=real),
                                       CollectConfig(config.transitions, keep_goal=True, seed=seed), self.show))  # fmt: skip
        data = load_dataset(real)
        world: World = self.step("fit", f"dydiff-env fit --dataset {real} --out {world_path}",
                                 lambda: World.fit(data, preset=world_preset(config.scale), out=world_path,
                                                   seed=seed, progress=self.show))  # fmt: skip
        logged = Run("td3bc", str(real), out / "td3bc.pt", steps=config.updates, seed=seed, env="",
                     world=str(world_path.resolve()), schedule=Schedule(eval_every=every, eval_episodes=16))  # fmt: skip
        both = replace(logged, out=out / "td3bc-mixed.pt", synthetic=(str(syn),))
        first = logged.under(seed).out

        def trained(run: Run) -> Any:
            return train_seeds(run, seeds, self.show) if len(seeds) > 1 else run.under(seed).carry_out(self.show)

        line = (f"dydiff-env train td3bc --dataset {real} --world {world_path} --steps {config.updates} "
                f"--seeds {','.join(map(str, seeds))} --env-eval --eval-every {every} --eval-episodes 16")  # fmt: skip
        self.step("train", f"{line} --out {logged.out}", lambda: trained(logged))
        dreamt = self.step("export", f"dydiff-env export --policy {first} --keep 0.6 --out {syn}",
                           lambda: export(world, first, syn, batch=config.starts, keep=0.6, seed=seed,
                                          progress=self.show))  # fmt: skip
        self.step("train on the mix", f"{line} --synthetic {syn} --out {both.out}", lambda: trained(both))

        def judged(run: Run) -> dict[str, Any]:
            found = [evaluate_returns(load_agent(run.under(one).out), environment_of(data.spec), config.episodes, seed=seed + 1)
                     for one in seeds]  # fmt: skip
            returns, lengths = (np.concatenate([getattr(one, name) for one in found]) for name in ("returns", "lengths"))
            agents = np.repeat(np.arange(len(seeds)), config.episodes)  # which differ more than episodes do
            pooled = Episodes(returns, lengths, agents if len(seeds) > 1 else None)
            return pooled.document(data.spec)

        scores = self.step("evaluate", f"dydiff-env evaluate --policy {first} --episodes {config.episodes}",
                           lambda: {"real data": judged(logged), "real + dreamt": judged(both)})  # fmt: skip
        legal = self.step("draw", f"{out / 'rollouts.png'}", lambda: self.draw(world, first))
        page = out / "report.html"
        self.step("report", f"dydiff-env report {out} --policy {first} --out {page}",
                  lambda: report([out], page, policy=first, seed=seed))  # fmt: skip
        return {"scores": scores, "seeds": seeds, "legal_rollouts": legal, "pictured": config.pictured, "export": dreamt,
                "policy": str(first), "seconds": self.seconds, "out": str(out), "report": str(page)}  # fmt: skip

    def draw(self, world: World, policy_path: Path) -> dict[str, int]:
        """The same policy from the same starts: single-step, refined, and in the simulator."""
        from dydiff_env.cli.maze_plot import draw_rollouts
        from dydiff_env.evaluation.mazes import position_columns
        from dydiff_env.evaluation.simulator import Simulator
        from dydiff_env.policies import load_policy

        policy = load_policy(policy_path, world.spec)
        starts = world.sample_starts(self.config.pictured, seed=self.seed + 2)
        simulator = Simulator(world.spec)
        panels = {
            "Single-step rollout": world.dream(policy, starts, iterations=0),
            f"Refined, M = {max(1, world.iterations)}": world.dream(
                policy, starts, iterations=max(1, world.iterations)
            ),
            "Real simulator": simulator.follow(policy, starts, world.horizon),
        }
        columns = position_columns(world.spec.observation_space)
        legal = draw_rollouts(panels, columns, simulator.base.maze, self.out / "rollouts.png")
        simulator.close()
        return legal


def _show(document: dict[str, Any]) -> None:
    count = len(document["seeds"])
    table = Table(title=f"Returns in the real simulator{f', {count} seeds' if count > 1 else ''}")
    for column in ("TD3BC trained on", "mean return", "95 % interval", "normalised"):
        table.add_column(column, justify="left" if "on" in column and "return" not in column else "right")
    for name, score in document["scores"].items():
        low, high = score["return_ci"]
        normal = score.get("normalized_score")
        table.add_row(name, f"{score['return_mean']:.1f}", f"{low:.1f} to {high:.1f}",
                      "" if normal is None else f"{normal:.0f}")  # fmt: skip
    console.print(table)
    table = Table(title=f"Rollouts that stay out of the walls, of {document['pictured']}")
    for name in document["legal_rollouts"]:
        table.add_column(name, justify="right")
    table.add_row(*map(str, document["legal_rollouts"].values()))
    console.print(table)
    total = sum(document["seconds"].values())
    console.print(
        f"{total:.0f} s: " + ", ".join(f"{name} {s:.0f}" for name, s in document["seconds"].items())
    )
    console.print(f"Picture: [bold]{document['out']}/rollouts.png[/]", soft_wrap=True)
    close(document)
