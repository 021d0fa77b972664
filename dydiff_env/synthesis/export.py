"""A policy's refined, filtered rollouts as a Minari dataset: round by round, resumable, published whole."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from dydiff_env.data.dataset import fingerprint
from dydiff_env.data.minari_writer import (
    MinariWriter,
    check_dataset_id,
    dataset_id_for,
    register,
    registered_folder,
)
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.bounded import BoundedPolicy
from dydiff_env.progress import announce, progress_bar
from dydiff_env.synthesis.estimate import dream_seconds
from dydiff_env.synthesis.filters import kept_count
from dydiff_env.synthesis.lock import sole_writer
from dydiff_env.synthesis.rounds import RoundOptions
from dydiff_env.synthesis.workers import Sources, in_order
from dydiff_env.world.world import World


def export(
    world: World | str | Path,
    policy: Any,
    out: str | Path,
    *,
    trajectories: int | None = None,
    horizon: int = 100,
    iterations: int | None = None,
    filter: str = "softmax",
    keep: float = 0.8,
    temperature: float = 0.05,
    batch: int = 2048,
    deterministic: bool = True,
    start: Literal["dataset", "initial"] = "dataset",
    max_uncertainty: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    dataset_id: str | None = None,
    workers: int = 1,
    trust: bool = False,
    vecnormalize: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Roll out `policy` in `world` and write the rollouts that pass the filter to the Minari folder `out`.

    Every finished round is on disk at once under `OUT.partial`; the folder `out` appears by one rename at the
    end. A run that was killed goes on with `resume` and ends with the same arrays, however many the workers.

    Args:
        world: a World or its folder.
        policy: anything `dydiff_env.policies.as_policy` takes: a file, a name, a Policy, a callable.
        out: the Minari folder to make.
        trajectories: how many rollouts are kept in all; one round's by default.
        horizon: most steps of a rollout; beyond the world's window, windows are chained.
        iterations: refinements M (Eqs. 7–9); the world's own by default, 0 for the plain single-step rollout.
        filter: hardmax, softmax, none, or a package's own.
        keep: share η of a round's rollouts that is kept.
        temperature: of the softmax filter.
        batch: rollouts of a round, B_r.
        deterministic: the policy's mode instead of its samples.
        start: "dataset" draws starts from all logged states, "initial" from episodes' first ones.
        max_uncertainty: cut a rollout before its first transition more uncertain than this.
        seed: of everything drawn.
        overwrite: replace an existing `out`.
        resume: go on with an unfinished `OUT.partial`.
        dataset_id: also register the dataset, so that `minari.load_dataset(dataset_id)` finds it.
        workers: processes that dream; with more than one, `world` and `policy` are best given by path.
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
    begun, out = time.perf_counter(), Path(out)
    if workers < 1:
        raise DyDiffError(f"--workers is {workers}.", "Give 1 or more.", usage=True)
    if dataset_id is not None:
        check_dataset_id(dataset_id)
        if registered_folder(dataset_id).exists() and not overwrite:
            raise DyDiffError(
                f"The dataset {dataset_id} exists.", "Choose another id, or replace it with --overwrite."
            )
    loading = {"trust": trust, "vecnormalize": vecnormalize}
    sources = Sources(world, policy, loading, device)
    opened = world, policy = sources.open()
    options = RoundOptions(
        trajectories=kept_count(keep, batch) if trajectories is None else trajectories,
        horizon=horizon,
        iterations=world.iterations if iterations is None else iterations,
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
    spec = replace(world.spec, dataset_id=dataset_id or dataset_id_for(out))
    recipe = {"options": asdict(options), "world": _world_facts(world), "policy": _policy_facts(policy)}
    files = {"overwrite": overwrite, "resume": resume, "resumable": True}
    with sole_writer(out), MinariWriter(out, spec, **files) as writer:
        _same_recipe(writer, recipe)
        before = writer.trajectories
        try:
            _dream(writer, sources, opened, options, workers, recipe, progress)
            rounds = [note["statistics"] for note in writer.notes]
            writer.publish(
                algorithm_name="DyDiff" if options.iterations else "single-step rollout",
                description=f"A {policy.kind} policy in a world learned from {world.spec.dataset_id}.",
                provenance={"kind": "export", "versions": _versions(), **recipe, "rounds": rounds},
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
    if dataset_id is not None:
        register(out, dataset_id, overwrite=overwrite)
    seconds = time.perf_counter() - begun
    means = [r["returns_kept"]["mean"] * r["kept"] for r in rounds if r["returns_kept"]]
    return {
        "trajectories": writer.trajectories,
        "transitions": writer.transitions,
        "seconds": round(seconds, 3),
        "trajectories_per_second": round((writer.trajectories - before) / seconds, 3),
        "return_mean": sum(means) / writer.trajectories,
        "actions_clipped": sum(r["actions_clipped"] for r in rounds),
        "out": str(out),
    }


def _dream(
    writer: MinariWriter,
    sources: Sources,
    opened: tuple[World, BoundedPolicy],
    options: RoundOptions,
    workers: int,
    recipe: dict[str, Any],
    progress: bool,
) -> None:
    """Dream the rounds that are missing and append each as it comes."""
    batches = options.batches()
    missing: Sequence[int] = range(writer.parts, len(batches))
    if progress:
        taking = dream_seconds(*opened, options, (batches[index] for index in missing))
        announce("dreaming", taking / min(workers, max(1, len(missing))))
    with progress_bar("dreaming", options.trajectories, progress) as advance:
        advance(writer.trajectories)
        for kept, statistics in in_order(sources, opened, options, missing, workers):
            writer.append(kept, {"statistics": statistics, "recipe": recipe})
            advance(len(kept))


def _same_recipe(writer: MinariWriter, recipe: dict[str, Any]) -> None:
    """Refuse to go on with rounds that were made otherwise."""
    if not writer.notes:
        return
    before = {**writer.notes[0]["recipe"], **writer.notes[0]["recipe"]["options"]}
    now = {**recipe, **recipe["options"]}
    del now["options"]
    other = [f"{key} was {before.get(key)!r}" for key in now if before.get(key) != now[key]]
    if other:
        raise DyDiffError(
            f"{writer.partial} was begun otherwise: {'; '.join(other)}.",
            "Resume with the same world, policy and options, or start anew with --overwrite.",
            usage=True,
        )


def _world_facts(world: World) -> dict[str, Any]:
    tensors = [value.cpu().numpy() for value in world.models.state_dict().values()]
    return {
        "fingerprint": fingerprint(*tensors, world.start_bank, world.initial_bank),
        "dataset_id": world.spec.dataset_id,
        "dataset_fingerprint": world.spec.fingerprint,
    }


def _policy_facts(policy: BoundedPolicy) -> dict[str, Any]:
    return {"kind": policy.kind, "fingerprint": policy.fingerprint}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("dydiff-env", "torch", "numpy", "gymnasium", "minari")}
