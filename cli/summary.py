"""What each command has made, in a sentence, and the commands that go on from there."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Summary = tuple[str, list[str]]  # (what was made, command lines)


def summary(command: str, document: dict[str, Any]) -> Summary:
    """The sentence and the lines for what a command returned; nothing for one that has neither."""
    return SUMMARIES[command](document) if command in SUMMARIES else ("", [])


def line(command: str, *words: object) -> str:
    """A command line that can be pasted."""
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return f"dydiff-env {command} {join([str(word) for word in words])}"


def _evaluation(path: str | Path, *words: object) -> str:
    """How an agent is evaluated: in its environment, or in its world where its data name none."""
    # Not at the top: it brings torch, which is there by now but for who only asks what a dataset holds.
    from dydiff_env.envs.worlds import trained

    agent = trained(str(path)) if Path(path).is_file() else None
    simulated = agent is None or agent.spec is None or agent.spec.env_spec is not None
    world = [] if simulated or agent is None else ["--world", agent.world or "WORLD"]
    return line("evaluate", "--policy", path, *words, *world)


def _source(document: dict[str, Any]) -> str:
    """What a command takes a dataset by: its id where it lies under it, else its folder."""
    path, name = Path(document["path"]), str(document["dataset_id"])
    return name if path.as_posix().endswith(f"{name}/data") else str(path)


def _dataset(document: dict[str, Any]) -> Summary:
    source = _source(document)
    made = f"{source}: {document['episodes']:,} episodes, {document['transitions']:,} transitions."
    return made, [line("fit", "--dataset", source, "--out", "world"), line("inspect", source)]


def _mix(document: dict[str, Any]) -> Summary:
    out = document["out"]
    return f"{out} holds both; infos/source says which is which.", [
        line("train", "td3bc", "--dataset", out, "--out", "ckpt.pt")
    ]


def _export(document: dict[str, Any]) -> Summary:
    out = document["out"]
    made = f"{out}: {document['trajectories']:,} rollouts, {document['transitions']:,} transitions."
    train = line("train", "td3bc", "--dataset", "REAL", "--synthetic", out, "--world", document["world"], "--out", "better.pt")
    return made, [train, line("report", out)]


def _train(document: dict[str, Any]) -> Summary:
    path, best, made = document.get("checkpoint"), document.get("best_checkpoint"), ""
    if path is not None:  # not several seeds
        returns = document.get("returns")
        reached = f", last return {returns[-1][1]:.1f}" if returns else ""
        made = f"{path} after {document['updates']:,} updates, {document['updates_per_second']:.0f} a second{reached}. "
    if best is not None:
        where = "dreamt" if document["best_by"] == "dream_return" else "real"
        made += f"{best} has the best {where} return, {document['best_return']:.1f}, after {document['best_updates']:,}."
    path = best or path
    return made.rstrip(), [_evaluation(path), line("export", "--policy", path, "--out", "syn.minari")] if path else []


def _improve(document: dict[str, Any]) -> Summary:
    before, best = document["dream_return_before"], document.get("best_return")
    if best is None or best <= before:
        return f"No copy gains in every member of the ensemble over the policy it began with (dreamt {before:.1f}): keep that one.", []
    made = (
        f"{document['best_checkpoint']} gains {best - before:.1f} in dreams in each member of the ensemble at least, over the policy it "
        f"began with ({before:.1f})."
    )
    return made, _train(document)[1]


def _loop(document: dict[str, Any]) -> Summary:
    path, rounds = Path(document["checkpoint"]), document["rounds"]
    made = f"{path} after {len(rounds)} rounds and {document['updates']:,} updates in {document['seconds']:.0f} s."
    best = document["best_checkpoint"]
    made += f" {best} has the best dreams, those after round {document['best_round']}."
    return made, [_evaluation(best, "--episodes", 20), line("report", path.parent)]


def _inspect(document: dict[str, Any]) -> Summary:
    path, kind = document["path"], document["kind"]
    if kind == "world":
        return "", [line("export", "--policy", "FILE", "--world", path, "--out", "syn.minari"), line("report", path)]
    if kind == "dataset":
        source = _source(document)
        return "", [line("fit", "--dataset", source, "--out", "world"), line("report", source)]
    return "", [_evaluation(path)] if document["format"] == "agent" else []


def _fit(document: dict[str, Any]) -> Summary:
    world = document["world"]
    made = f"{world} is ready after {document['seconds']:.0f} s."
    return made, [line("export", "--policy", "FILE", "--world", world, "--out", "syn.minari"), line("report", world)]


def _evaluate(document: dict[str, Any]) -> Summary:
    if "return_mean" not in document:
        return "", []
    low, high = document["return_ci"]
    made = f"Mean return {document['return_mean']:.1f}, 95 % interval {low:.1f} to {high:.1f}, in {document['in']}."
    return made, []


def _fidelity(document: dict[str, Any]) -> Summary:
    more = [line("fidelity", "--world", document["world"], "--policy", "FILE")] if document["policies"] else []  # there is a simulator
    return "", [line("report", document["world"]), *more]


NAMES = {"worlds": "world", "datasets": "dataset", "checkpoints": "checkpoint", "logs": "log", "loops": "loop",
         "fidelities": "fidelity"}  # fmt: skip


def _report(document: dict[str, Any]) -> Summary:
    shown = ", ".join(f"{n} {name if n > 1 else NAMES[name]}" for name, n in document.items() if name in NAMES and n)
    return f"{document['out']} shows {shown}. Open it in a browser; it needs nothing else.", []


def _demo(document: dict[str, Any]) -> Summary:
    out = Path(document["out"])
    made = f"{document['report']} shows it all: open it in a browser. The data, world and agents are in {out}."
    again = line("export", "--policy", document["policy"], "--out", "syn.minari")
    return made, [again, line("fit", "--dataset", "YOUR_DATA", "--out", "world")]


SUMMARIES: dict[str, Callable[[dict[str, Any]], Summary]] = {
    "collect": _dataset,
    "import-d4rl": _dataset,
    "import-table": _dataset,
    "mix": _mix,
    "fit": _fit,
    "export": _export,
    "fidelity": _fidelity,
    "train": _train,
    "improve": _improve,
    "loop": _loop,
    "evaluate": _evaluate,
    "report": _report,
    "inspect": _inspect,
    "demo": _demo,
}
