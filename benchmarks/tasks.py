"""Other tasks than those that settings were tuned on: log → world → ranking of policies → an improved policy, by the command line alone.

    python benchmarks/tasks.py Reacher-v5 --steps 200000 --out FOLDER [--algorithm ppo] [--table benchmarks/results/tasks.json]

A row a task: what the log holds, how long `fit --preset quick` takes, its errors held out, how dreams rank eight policies (their real
returns are asked of the environment) and whether the ensemble's members agree on it, and what `improve` makes of the log's medium policy
(real returns, afterwards). Steps that have been done are not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EPISODES, COUNT = 20, 8


def once(document: Path, command: Callable[[], list[str]]) -> dict[str, Any]:
    """What a command printed as JSON, now or in an earlier run."""
    if not document.exists():
        told = subprocess.run(command(), check=True, stdout=subprocess.PIPE, text=True).stdout
        document.write_text(told)
    found: dict[str, Any] = json.loads(document.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--algorithm", default="ppo")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    tool, folder = str(Path(sys.executable).with_name("dydiff-env")), options.out / options.task
    folder.mkdir(parents=True, exist_ok=True)
    log, world, graded, improved = folder / "log.minari", folder / "world", folder / "graded", folder / "improved.pt"
    given = [folder / "log-policies" / f"{name}.pt" for name in ("medium", "expert")]

    asked = [options.task, "--algorithm", options.algorithm, "--steps", str(options.steps)]
    once(folder / "collect.json", lambda: [tool, "collect", *asked, "--out", str(log), "--json"])
    inspected = once(folder / "inspect.json", lambda: [tool, "inspect", str(log), "--json"])
    fitted = once(folder / "fit.json", lambda: [tool, "fit", "--preset", "quick", "--dataset", str(log), "--out", str(world), "--json"])
    made = json.loads((world / "world.json").read_text())
    record = made["record"]
    if not (graded / "policies.json").exists():
        script = str(Path(__file__).with_name("make_policies.py"))
        ends = [part for path in given for part in ("--policy", str(path))]
        subprocess.run([sys.executable, script, str(log), "--out", str(graded), *ends, "--count", str(COUNT)], check=True)
    ranked = once(
        folder / "ranking.json",
        lambda: [tool, "evaluate", *(part for path in sorted(graded.glob("*.pt")) for part in ("--policy", str(path))),
                 "--world", str(world), "--env", options.task, "--episodes", str(EPISODES), "--json"],
    )  # fmt: skip
    better = once(
        folder / "improve.json",
        lambda: [tool, "improve", "--policy", str(given[0]), "--world", str(world), "--out", str(improved), "--resume", "--json"],
    )
    checked = once(
        folder / "returns.json",
        lambda: [tool, "evaluate", "--policy", str(given[0]), "--policy", better["best_checkpoint"], "--policy", str(improved),
                 "--env", options.task, "--episodes", str(EPISODES), "--seed", "1000", "--json"],
    )  # fmt: skip
    real = {Path(row["policy"]).name: row["real_return"] for row in checked["policies"]}
    closed, ends = record["fidelity"]["closed_loop"], record["training"]["termination"].get("held_out", {})
    row = {
        "command": f"python benchmarks/tasks.py {' '.join(asked)} --out FOLDER",
        "sizes": [inspected["observation_size"], inspected["action_size"]],
        "episodes": inspected["episodes"],
        "terminated": inspected["terminated"],
        "return_mean": inspected["return_mean"],
        "return_best": inspected["return_quartiles"][-1],
        "random": inspected["ref_min_score"],
        "fit_seconds": fitted["seconds"],
        "beta": made["preset"]["dynamics"]["beta"],
        "held_out": {name: closed[name]["mean"] for name in ("M0", "M1")},
        "iterations": record["refinement"]["iterations"],
        "r2": record["training"]["reward"]["r2"],
        "termination": [ends[name] for name in ("precision", "recall") if name in ends],
        "drawn_ends": bool(made["preset"]["termination"].get("drawn")),
        "ranking": {**ranked["agreement"], "consensus": ranked["consensus"], "spread": ranked["spread"]},
        "improve": {"policy": real["medium.pt"], "chosen": real[Path(better["best_checkpoint"]).name], "last": real[improved.name],
                    "dreamt_policy": better["dream_return_before"], "dreamt_chosen": better["best_return"]},
    }  # fmt: skip
    print(json.dumps({options.task: row}, indent=1))
    if options.table:
        table = json.loads(options.table.read_text()) if options.table.exists() else {}
        options.table.write_text(json.dumps({**table, options.task: row}, indent=1) + "\n")


if __name__ == "__main__":
    main()
