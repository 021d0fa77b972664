"""What a report says, section by section."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dydiff_env.data.dataset import Dataset, DatasetSpec
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.clone import BestClone
from dydiff_env.evaluation.documents import (
    dataset_document,
    lines,
    policy_document,
    provenance,
    world_document,
)
from dydiff_env.evaluation.report import charts
from dydiff_env.evaluation.report.curves import groups, learning_curves, loop_charts
from dydiff_env.evaluation.report.page import Chart, Facts, Headline, Section, Table, number
from dydiff_env.evaluation.report.rollouts import refinement_chart
from dydiff_env.evaluation.report.sources import Sources, labels, read_json
from dydiff_env.policies import load_policy
from dydiff_env.policies.agent import read_checkpoint
from dydiff_env.policies.kinds import file_kind
from dydiff_env.policies.policy import Policy
from dydiff_env.world.world import World


@dataclass(frozen=True)
class Dreaming:
    """How the picture of rollouts is made; see ``report``."""

    policy: Any = None
    starts: int = 12
    trust: bool = False
    vecnormalize: str | Path | None = None
    seed: int = 0
    device: str = "cpu"


def all_sections(sources: Sources, dreaming: Dreaming) -> tuple[list[Headline], list[Section]]:
    """Numbers that stand out, and every section that the sources have something for."""
    headlines: list[Headline] = []
    sections: list[Section] = []
    for name, path in zip(labels(sources.worlds), sources.worlds, strict=True):
        world = World.load(path, dreaming.device)
        sections += world_sections(world, name, sources.checkpoints, dreaming, headlines)
    for path in sources.fidelities:
        policies = read_json(path)["policies"]
        if policies:
            sections.append(Section(f"Against the simulator: {path.stem}",
                                    "The same policies from the same starts, dreamt and for real.",
                                    list(charts.simulator(policies))))  # fmt: skip
    if sources.datasets:
        sections.append(dataset_section(sources.datasets, headlines))
    for name, path in zip(labels(sources.datasets), sources.datasets, strict=True):
        rounds = (provenance(path) or {}).get("rounds")
        if rounds:
            sections.append(filter_section(name, provenance(path) or {}, headlines))
    runs = groups(sources.logs)
    if runs:
        lead = "Offline agents in training. Runs whose names differ by a number at the end are one run's seeds."
        sections.append(Section("Learning curves", lead, list(learning_curves(runs))))
    if sources.loops:
        parts = [chart for folder in sources.loops for chart in loop_charts(folder)]
        sections.append(Section("Algorithm 1, round by round", "Train, dream, filter, mix, and again.", list(parts)))
    sections.append(provenance_section(sources))
    return headlines, sections


def world_sections(
    world: World, name: str, checkpoints: list[Path], dreaming: Dreaming, headlines: list[Headline]
) -> list[Section]:
    """How far a world can be trusted, and its rollouts before and after refinement."""
    fidelity, refinement = world.record.get("fidelity"), world.record.get("refinement", {})
    sections = []
    if fidelity:
        parts: list[Chart | Table | Facts] = [charts.open_loop(fidelity)]
        lead = "Errors on logged steps that neither dynamics nor denoiser learned from, in standard deviations of the data, squared."
        if "closed_loop" in fidelity:
            steps = refinement.get("iterations", world.iterations)
            chosen = f"M{steps}"
            parts = [charts.closed_loop(fidelity, chosen), parts[0], charts.against_m(fidelity, chosen)]
            headlines.append(Headline(f"M = {steps}", f"refinements chosen for {name}, by held-out data"))
            results = fidelity["closed_loop"]
            if steps and chosen in results:
                ratio = results["M0"]["mean"] / max(results[chosen]["mean"], 1e-12)
                said = "less error than the single-step rollout's on held-out windows, corrections believed whole"
                headlines.append(Headline(f"{ratio:.3g}×", said))
            lead += f" {refinement.get('reason', '')}"
        parts.append(training_table(world.record))
        sections.append(Section(f"Fidelity: {name}", lead, parts))
    policy, policy_name = choose_policy(world, checkpoints, dreaming)
    chart = refinement_chart(world, policy, policy_name, starts=dreaming.starts, seed=dreaming.seed)
    lead = "Each refinement asks the denoiser for the states that fit the actions, then the policy for the actions that fit the states."
    return [*sections, Section(f"Rollouts before and after refinement: {name}", lead, [chart])]


def training_table(record: dict[str, Any]) -> Table:
    """What each part of a world took, and what it reached."""
    rows = []
    for part, done in record.get("training", {}).items():
        curve, held_out = done.get("curve") or [], done.get("holdout") or []
        rows.append([part, record.get("parameters", {}).get(part), done.get("steps"), done.get("seconds"),
                     curve[-1][1] if curve else None,
                     float(sum(held_out) / len(held_out)) if held_out else None])  # fmt: skip
    columns = ["part", "parameters", "steps", "seconds", "training loss", "held-out loss"]
    return Table(columns, rows, "What was trained. Each part has a loss of its own: compare within a row only.")


def choose_policy(world: World, checkpoints: list[Path], dreaming: Dreaming) -> tuple[Policy, str]:
    """The policy asked for, else a checkpoint that fits, else the world's best clone, else random actions."""
    if dreaming.policy is not None:
        chosen = load_policy(dreaming.policy, world.spec, trust=dreaming.trust, vecnormalize=dreaming.vecnormalize, device=dreaming.device)
        named = isinstance(dreaming.policy, str | Path)
        return chosen, Path(dreaming.policy).name if named else type(dreaming.policy).__name__
    for path in checkpoints:
        try:
            if _of_another_task(path, world):
                continue
            return load_policy(path, world.spec, device=dreaming.device), path.name
        except DyDiffError:
            continue  # made for another environment, or a format that needs --trust: not this picture's
    if world.models.behavior is not None:
        return BestClone(world), "a clone of the best episodes"
    return load_policy("random", world.spec), "random actions"


def _of_another_task(path: Path, world: World) -> bool:
    """Whether an agent was trained on data of another environment, which may have as many numbers."""
    if file_kind(path) != "agent":
        return False
    theirs, ours = DatasetSpec.from_json(read_checkpoint(path)["spec"]).environment, world.spec.environment
    return theirs is not None and ours is not None and theirs.id != ours.id


def dataset_section(folders: list[Path], headlines: list[Headline]) -> Section:
    """Returns and lengths of datasets, side by side."""
    names = labels(folders)
    datasets: dict[str, Dataset] = dict(zip(names, map(load_dataset, folders), strict=True))
    rows, returns, rewards = [], {}, {}
    for name, data in datasets.items():
        returns[name], rewards[name] = data.returns, data.returns / data.lengths
        rows.append([name, len(data), data.transitions, float(data.lengths.mean()), float(data.terminations.mean()),
                     float(data.returns.mean()), float(rewards[name].mean())])  # fmt: skip
        headlines.append(Headline(number(data.transitions), f"transitions in {name}"))
    columns = ["dataset", "episodes", "transitions", "mean length", "share terminated", "mean return", "reward a step"]
    parts: list[Chart | Table | Facts] = [
        charts.histogram(returns, "return of an episode", "Distribution of returns over episodes.")
    ]
    if len(datasets) > 1:
        caption = "Mean reward a step: comparable where rollouts are shorter than episodes."
        parts.append(charts.histogram(rewards, "reward a step", caption))
    lead = "Logged and dreamt episodes. A dreamt rollout starts anywhere and ends at its horizon: its return is part of an episode's."
    return Section("Data", lead, [*parts, Table(columns, rows)])


def filter_section(name: str, made: dict[str, Any], headlines: list[Headline]) -> Section:
    """What the filter of an export kept, round by round."""
    rounds, options = made["rounds"], made["options"]
    kept, started = sum(r["kept"] for r in rounds), sum(r["starts"] for r in rounds)
    chart = charts.filter_effect(
        rounds, "Dot: mean return of a round's rollouts; thick bar: one standard deviation; thin bar: least to most."
    )
    known = [r for r in rounds if r["returns_all"] and r["returns_kept"]]
    before, after = (
        sum(r[key]["mean"] * r[count] for r in known) / max(1, sum(r[count] for r in known))
        for key, count in (("returns_all", "starts"), ("returns_kept", "kept"))
    )
    headlines.append(Headline(f"{before:.3g} → {after:.3g}", f"mean return in {name}, by the {options['filter']} filter"))
    lead = (
        f"{number(kept)} of {number(started)} rollouts kept by the {options['filter']} filter (keep {options['keep']}, "
        f"temperature {options['temperature']}); M = {options['iterations']}, {options['horizon']} steps at most."
    )
    columns = ["round", "started", "kept", "terminated", "cut", "diverged", "transitions", "uncertainty", "actions clipped"]
    keys = ["starts", "kept", "terminated", "cut", "diverged", "transitions", "uncertainty", "actions_clipped"]
    rows = [[str(r["round"] + 1), *(r.get(key) for key in keys)] for r in rounds[:50]]
    return Section(f"The filter: {name}", lead, [chart, Table(columns, rows)])


def provenance_section(sources: Sources) -> Section:
    """The records of everything that is shown."""
    facts = []
    for path in sources.worlds:
        document = world_document(path)
        shown = {"training", "fidelity"}  # in sections of their own
        document["record"] = {key: value for key, value in document["record"].items() if key not in shown}
        facts.append(Facts(f"World {path}", lines(document)))
    facts += [Facts(f"Dataset {path}", lines(dataset_document(path))) for path in sources.datasets]
    facts += [Facts(f"Policy {path}", lines(policy_document(path))) for path in sources.checkpoints]
    facts += [Facts(f"Loop {path}", lines(read_json(path / "loop.json"))) for path in sources.loops]
    facts += [Facts(f"Log {path}", {"rows": len(path.read_text().splitlines()) - 1}) for path in sources.logs]
    lead = "How each thing says it was made; “dydiff-env inspect PATH” says what it holds."
    return Section("Provenance", lead, list(facts))
