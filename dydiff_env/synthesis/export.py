"""A policy's refined, filtered rollouts as a Minari dataset: round by round, resumable, published whole."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from dydiff_env.data.episode_files import FORMATS
from dydiff_env.data.minari_writer import MinariWriter
from dydiff_env.data.registry import Destination, registered_folder
from dydiff_env.errors import DyDiffError, unknown
from dydiff_env.lock import sole_writer
from dydiff_env.progress import announce, progress_bar
from dydiff_env.synthesis.cluster import import_ray, in_order_on_ray
from dydiff_env.synthesis.estimate import dream_seconds
from dydiff_env.synthesis.filters import kept_count, share_kept
from dydiff_env.synthesis.methods import Dreamer, get_method
from dydiff_env.synthesis.provenance import (
    algorithm,
    check_same,
    description,
    finished_rounds,
    totals,
    versions,
)
from dydiff_env.synthesis.rounds import RoundOptions
from dydiff_env.synthesis.workers import Round, Sources, facts, in_order
from dydiff_env.world.world import World


def export(
    world: World | str | Path,
    policy: Any,
    out: str | Path,
    *,
    method: str = "dydiff",
    trajectories: int | None = None,
    horizon: int | None = None,
    iterations: int | None = None,
    filter: str | None = None,
    keep: float | None = None,
    temperature: float = 0.05,
    batch: int = 2048,
    deterministic: bool = True,
    start: Literal["dataset", "initial"] = "dataset",
    max_uncertainty: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    dataset_id: str | None = None,
    data_format: str = "hdf5",
    workers: int = 1,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    trust: bool = False,
    vecnormalize: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Roll out `policy` in `world` and write the rollouts that pass the filter to the Minari folder `out`.

    Every finished round is on disk at once under `OUT.partial`; the folder `out` appears by one rename at the
    end. A run that was killed goes on with `resume` and ends with the same arrays, however many the workers.

    Args:
        world: a World or its folder; the folder for a baseline, whose model lies in it.
        policy: anything `dydiff_env.policies.as_policy` takes: a file, a name, a Policy, a callable. None for a
            method that follows no policy.
        out: the Minari folder to make.
        method: dydiff, single-step (no refinement), synther, synther-filtered or mtdiff-s.
        trajectories: how many rollouts are kept in all; one round's by default.
        horizon: most steps of a rollout, 100 by default; beyond the world's window, windows are chained. SynthER's
            are single transitions.
        iterations: refinements M (Eqs. 7–9); the world's own by default, 0 for the plain single-step rollout.
        filter: hardmax, softmax, none, or a package's own; the method's by default: softmax, but none for synther
            and mtdiff-s.
        keep: share η of a round's rollouts that is kept; by default .8, or all without a filter.
        temperature: of the softmax filter.
        batch: rollouts of a round, B_r.
        deterministic: the policy's mode instead of its samples.
        start: "dataset" draws starts from all logged states, "initial" from episodes' first ones.
        max_uncertainty: cut a rollout before its first transition more uncertain than this.
        seed: of everything drawn.
        overwrite: replace an existing `out`.
        resume: go on with an unfinished `OUT.partial`; a finished `out` of the same recipe is left as it is.
        dataset_id: also register the dataset, so that `minari.load_dataset(dataset_id)` finds it.
        data_format: Minari's: hdf5, or arrow (a file an episode).
        workers: processes that dream; with more than one, `world` and `policy` are best given by path.
        engine: "local" for processes on this machine, "ray" for a Ray cluster.
        address: of a running Ray cluster; None starts one on this machine.
        trust: allow policy formats that can run code on loading.
        vecnormalize: SB3's VecNormalize statistics, for an SB3 policy.
        device: where the world and the policy run.
        progress: show a bar on a terminal.

    Returns:
        trajectories, transitions, seconds, trajectories_per_second, return_mean, actions_clipped, and out.

    Raises:
        DyDiffError: for wrong options, a policy that does not fit the world, an output in the way, or a full
            disk. Nothing is left behind but finished rounds.
    """
    begun = time.perf_counter()
    chosen = get_method(method)
    if workers < 1:
        raise DyDiffError(f"--workers is {workers}.", "Give 1 or more.", usage=True)
    if data_format not in FORMATS:
        raise unknown("data format", data_format, FORMATS)
    if engine not in ("local", "ray") or (address is not None and engine != "ray"):
        raise DyDiffError(
            f"--engine is {engine!r}{', with an --address' if address else ''}.",
            "Use local, or ray (which takes an --address).",
            usage=True,
        )
    if engine == "ray":
        import_ray()  # a clear error before anything is loaded
    # To resume, an id may be taken by this very export; that shows once the recipe is known.
    out, name = Destination(dataset_id, Path(out), overwrite or resume).resolve()
    sources = Sources(world, policy, method, {"trust": trust, "vecnormalize": vecnormalize}, device)
    opened = sources.open()
    if policy == "behavior":
        sources = replace(sources, policy=opened.policy)  # one clone for all: each worker would train its own
    world = opened.world
    filter = chosen.filter if filter is None else filter
    keep = share_kept(filter, keep)
    refined = world.iterations if method == "dydiff" else 0
    options = RoundOptions(
        trajectories=kept_count(keep, batch) if trajectories is None else trajectories,
        method=method,
        horizon=chosen.horizon if horizon is None else horizon,
        iterations=refined if iterations is None else iterations,
        filter=filter,
        keep=keep,
        temperature=temperature,
        batch=batch,
        deterministic=deterministic,
        start=start,
        max_uncertainty=max_uncertainty,
        seed=seed,
    )
    options.check()
    spec = replace(world.spec, dataset_id=name)
    recipe = {"options": asdict(options), **facts(opened)}
    if resume and dataset_id is not None and finished_rounds(registered_folder(dataset_id), recipe) is not None:
        dataset_id = None  # it is there
    destination = Destination(dataset_id, out, overwrite)
    destination.resolve()
    files: dict[str, Any] = {
        "overwrite": overwrite,
        "resume": resume,
        "resumable": True,
        "data_format": data_format,
    }
    with sole_writer(out):
        rounds = finished_rounds(out, recipe) if resume else None
        fresh = 0
        if rounds is None:
            with MinariWriter(out, spec, **files) as writer:
                if writer.notes:
                    check_same(writer.partial, writer.notes[0]["recipe"], recipe)
                before = writer.trajectories
                try:
                    batches = options.batches()
                    missing = range(writer.parts, len(batches))
                    if engine == "ray" and isinstance(opened.synthesizer, Dreamer) and options.iterations:
                        opened.synthesizer.trust  # noqa: B018 - now, and once: each task on the cluster would ask anew
                    if progress and isinstance(opened.synthesizer, Dreamer):
                        taking = dream_seconds(opened.synthesizer, options, (batches[index] for index in missing))
                        announce("dreaming", taking / min(workers, os.cpu_count() or 1, max(1, len(missing))))
                    made = (
                        in_order_on_ray(opened.synthesizer, options, missing, workers, address, str(world.device))
                        if engine == "ray"
                        else in_order(sources, opened, options, missing, workers)
                    )
                    _write(writer, made, options, recipe, progress)
                    rounds = [note["statistics"] for note in writer.notes]
                    if not writer.trajectories and max_uncertainty is not None:
                        writer.discard()
                        raise DyDiffError(
                            f"{out} would be empty: --max-uncertainty {max_uncertainty} cut every rollout at its first step.",
                            "Raise it, or leave it out.",
                        )
                    writer.publish(
                        algorithm_name=algorithm(options),
                        description=description(opened),
                        provenance={
                            "kind": "export",
                            "versions": versions(),
                            **recipe,
                            "totals": totals(rounds),
                            "rounds": rounds,
                        },
                    )
                except BaseException as error:
                    if writer.parts == 0:
                        writer.discard()
                    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise DyDiffError(
                            f"No space left for {out}; {writer.parts} of {len(options.batches())} rounds are done.",
                            "Free some, then go on with --resume.",
                        ) from error
                    raise
            fresh = writer.trajectories - before
    destination.register()
    seconds, sums = time.perf_counter() - begun, totals(rounds)
    return {
        "trajectories": sums["trajectories"],
        "transitions": sums["transitions"],
        "seconds": round(seconds, 3),
        "trajectories_per_second": round(fresh / seconds, 3),
        "return_mean": sums["return_mean"],
        "actions_clipped": sums["actions_clipped"],
        "out": str(out),
    }


def _write(
    writer: MinariWriter,
    made: Iterator[Round],
    options: RoundOptions,
    recipe: dict[str, Any],
    progress: bool,
) -> None:
    """Append the rounds as they come."""
    begun, before = time.perf_counter(), writer.trajectories
    with progress_bar("dreaming", options.trajectories, progress) as advance:
        advance(writer.trajectories)
        for kept, statistics in made:
            writer.append(kept, {"statistics": statistics, "recipe": recipe})
            rate = (writer.trajectories - before) / (time.perf_counter() - begun)
            advance(len(kept), f"{rate:.1f}/s")
