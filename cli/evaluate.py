"""``dydiff-env evaluate``: policies' returns, in the real environment, in a dream, or in both to compare them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from dydiff_env.cli.common import (
    Debug,
    Device,
    Json,
    Seed,
    Trust,
    VecNormalize,
    check_plot,
    check_statistics,
    console,
    emit,
    log,
    pick_device,
    reporting,
)
from dydiff_env.errors import DyDiffError

if TYPE_CHECKING:
    import numpy as np
    from gymnasium.envs.registration import EnvSpec

    from dydiff_env.data.dataset import DatasetSpec
    from dydiff_env.evaluation.scores import Episodes


def evaluate(
    policy: Annotated[
        list[str],
        typer.Option(help="Any checkpoint that `export` takes, random, or demo. Several make a ranking."),
    ],
    env: Annotated[str | None, typer.Option(help="Real environment; default: the checkpoint's own.")] = None,
    world: Annotated[
        Path | None,
        typer.Option(help="Evaluate in the dream of this world; with --env in both, and compare."),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many, of each policy.")] = 10,
    horizon: Annotated[
        int | None,
        typer.Option(min=1, help="Longest episode, steps; default: the environment's limit, or where none is known the longest logged."),
    ] = None,
    discount: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="A reward t steps on counts discount^t. Dreams know the near future best.")
    ] = 1.0,
    iterations: Annotated[int | None, typer.Option(help="Refinements M; the world's own by default.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic/--stochastic", help="The policy's mode.")
    ] = True,
    plot: Annotated[
        Path | None, typer.Option(help="Draw dreamt against real returns here; needs --world and --env.")
    ] = None,
    trust: Trust = False,
    vecnormalize: VecNormalize = None,
    seed: Seed = 0,
    device: Device = "auto",
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Mean return with its 95 % bootstrap interval."""
    with reporting(debug):
        if plot and not (env and world):
            raise DyDiffError("A plot compares dream and reality.", "Give --world and --env.", usage=True)
        check_statistics(vecnormalize, policy)
        from dydiff_env.evaluation.members import returns_by_member
        from dydiff_env.evaluation.ope import dream_returns, plot_agreement
        from dydiff_env.evaluation.scores import check_environment, environment_of, evaluate_returns
        from dydiff_env.policies.loader import load_policy
        from dydiff_env.progress import progress_bar
        from dydiff_env.world.world import World

        if plot:
            check_plot(plot)  # what is missing is missed before minutes of evaluating
        target = pick_device(device)
        dreams = World.load(world, target) if world else None
        spec = dreams.spec if dreams else _spec(policy, env)
        policies = {
            name: load_policy(name, spec, trust=trust, vecnormalize=vecnormalize, device=str(target))
            for name in policy
        }
        where: str | EnvSpec | None = None
        asked_horizon = horizon
        if env or not dreams:
            own = spec.environment
            # The data's own environment is made as it was there, its options included.
            where = own if own is not None and env in (None, own.id) else env or environment_of(spec)
            horizon = check_environment(where, spec, horizon)
        how: dict[str, Any] = {"horizon": horizon, "deterministic": deterministic, "seed": seed, "discount": discount}
        several = dreams is not None and dreams.models.dynamics.config.members > 1
        dreamt: dict[str, Episodes] | None = {} if dreams else None
        real: dict[str, Episodes] | None = None if where is None else {}
        members: dict[str, np.ndarray] = {}
        with progress_bar("evaluate", len(policies) * ((dreams is not None) + several + (where is not None)), not json) as advance:
            for name, one in policies.items():
                if dreams is not None and dreamt is not None:
                    dreamt[name] = dream_returns(dreams, one, episodes, iterations=iterations, **how)
                    advance(1)
                    if several:
                        members[name] = returns_by_member(dreams, one, episodes, **how).returns.mean(1)
                        advance(1)
                if where is not None and real is not None:
                    real[name] = evaluate_returns(one, where, episodes, **how)
                    advance(1)
        told = {} if discount == 1 else {"discount": discount}
        place = f"world {world}" if dreamt else env or environment_of(spec).id
        if len(policies) == 1 and (dreamt is None or real is None):
            found = next(iter((dreamt or real or {}).values()))
            asked = {"return_by_member": members[policy[0]].tolist()} if members else {}
            whole = discount == 1 and asked_horizon is None  # reference scores are of whole episodes
            emit({**found.document(spec if whole else None), **asked, **told, "in": place}, json)
            return
        document = _ranking(dreamt, real, members) | {
            "in": f"{place} and {env}" if dreamt and real else place,
            "episodes": episodes,
            **told,
        }
        emit(document, True) if json else _show(document)
        if plot and dreamt and real:  # last: what was found is not lost where it cannot be drawn
            plot_agreement(dreamt, real, plot)
            log.print(f"Plot: [bold]{plot}[/]", soft_wrap=True)


def _ranking(
    dreamt: dict[str, Episodes] | None, real: dict[str, Episodes] | None, members: dict[str, np.ndarray]
) -> dict[str, Any]:
    """One row a policy, best first by the dream where there is one; how its members agree, and how both do where there are both."""
    from dydiff_env.evaluation.members import consensus, spread
    from dydiff_env.evaluation.ope import agreement, table

    document: dict[str, Any] = {"policies": table(dreamt, real)}
    if members:
        for row in document["policies"]:
            row["dream_by_member"] = members[row["policy"]].tolist()
        if len(members) > 1:
            document |= {"consensus": consensus(members), "spread": spread(members)}
    if dreamt and real and len(real) > 1:
        document["agreement"] = asdict(agreement(dreamt, real))
    return document


def _show(document: dict[str, Any]) -> None:
    from dydiff_env.evaluation.members import AGREED, NEAR

    counted = f", discounted by {document['discount']:g}," if "discount" in document else ""
    title = escape(f"Returns{counted} of {document['episodes']} episodes each, in {document['in']}")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 0, 0, 1))
    table.add_column("policy", overflow="fold")
    places = [place for place in ("dream", "real") if f"{place}_return" in document["policies"][0]]
    asked = "dream_by_member" in document["policies"][0]
    for place in places:
        table.add_column(place, justify="right")
        table.add_column("95 % interval", justify="right")
        table.add_column("length", justify="right")
        if asked and place == "dream":
            table.add_column("by members", justify="right")
    for row in document["policies"]:
        cells = [escape(str(row["policy"]))]
        for place in places:
            low, high = row[f"{place}_ci"]
            cells += [f"{row[f'{place}_return']:.1f}", f"{low:.1f} to {high:.1f}", f"{row[f'{place}_length']:.0f}"]
            if asked and place == "dream":
                cells.append(f"{min(row['dream_by_member']):.1f} to {max(row['dream_by_member']):.1f}")
        table.add_row(*cells)
    console.print(table)
    if "consensus" in document:
        alike, near = document["consensus"] >= AGREED, document["spread"] <= NEAR
        console.print(
            f"Asked alone, the ensemble's members rank the policies {'alike' if alike else 'differently'} (mean rank correlation "
            f"{document['consensus']:.2f}), and differ about a policy by {document['spread']:.1%} of the range between policies"
            + ("." if alike and near else ": do not go by this order."),
            highlight=False,
            style="" if alike and near else "yellow",
        )
    if "agreement" in document:
        found = document["agreement"]
        console.print(
            "In reality all earn the same."
            if not found["real_range"]
            else f"Rank correlation {found['spearman']:.2f}; regret@1 {found['regret']:.1%} and mean absolute error "
            f"{found['mean_absolute_error']:.1%} of the real range, {found['real_range']:.1f}.",
            highlight=False,
        )


def _spec(policies: list[str], env: str | None) -> DatasetSpec:
    """Spaces and reference scores: the first agent checkpoint's own, else the environment's."""
    from dydiff_env.data.simulator import describe
    from dydiff_env.envs.worlds import trained

    for policy in policies:
        own = agent.spec if (agent := trained(policy)) else None
        if own is not None and (env is None or ((known := own.environment) and known.id == env)):
            return own
    if env is None:
        raise DyDiffError(
            f"{policies[0]} does not say which environment it belongs to.",
            "Give --env or --world.",
            usage=True,
        )
    return describe(env)
