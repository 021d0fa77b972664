"""Fitting a world: reward, termination, dynamics, behaviour clones, training rollouts, denoiser, and a look at the result."""

from __future__ import annotations

import dataclasses
import json
import operator
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dydiff_env.data.goals import one_goal_each
from dydiff_env.data.minari_io import Source, load_dataset
from dydiff_env.errors import DyDiffError, Note
from dydiff_env.lock import sole_writer
from dydiff_env.products import check_device, fast_products
from dydiff_env.progress import summary_writer
from dydiff_env.publish import WORLD, check_free, replacing
from dydiff_env.world.error_scale import ErrorScale
from dydiff_env.world.fit_denoiser import fit_anchored_denoiser, fit_free_denoiser, roll_out_anchors
from dydiff_env.world.fit_ends import fit_drawn_ends, fit_termination
from dydiff_env.world.fit_single_step import fit_behavior, fit_dynamics, fit_reward
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.heldout import choose_refinement, held_out_fidelity
from dydiff_env.world.parallel import Processes, processes
from dydiff_env.world.presets import Preset, get_preset
from dydiff_env.world.world import World

BANK = 8192  # start states a world carries


def fit(
    dataset: Source,
    *,
    preset: str | Preset = "fast",
    seed: int = 0,
    out: str | Path | None = None,
    device: str | torch.device = "cpu",
    overwrite: bool = False,
    progress: bool = False,
    tensorboard: str | Path | None = None,
) -> World:
    """Train a world.

    Args:
        dataset: a Minari id, its folder, a MinariDataset (as filtered), or a Dataset.
        preset: "fast", "quick", "tiny", "paper", or settings of your own.
        seed: of everything random.
        out: the folder the world is saved to. Work goes on in ``out.partial``: a killed fit, started again with the same arguments,
            continues and ends with the same world (bit for bit on the CPU with the same number of threads).
        device: where to train.
        overwrite: replace an existing ``out``.
        progress: show progress bars.
        tensorboard: folder that the training curves are written to as they grow.

    Where goals are replaced within episodes, as in D4RL's mazes, each goal's stretch counts as an episode that ends there
    (:mod:`dydiff_env.data.goals`).

    Raises:
        DyDiffError: for a dataset that cannot be read, an existing ``out``, a partial fit of other settings, or another process that is
            fitting the same ``out``.
    """
    check_device(device)
    settings, logged, seed = get_preset(preset), load_dataset(dataset), operator.index(seed)
    data = one_goal_each(logged)
    if replaced := len(data) - len(logged):
        warnings.warn(f"{replaced} goals are replaced within episodes: each counts as reached there, and ends a dream.", Note, stacklevel=3)
    if (outside := data.outside()) > 0.001:
        warnings.warn(
            f"{outside:.1%} of the logged actions lie outside the action space {data.spec.action_space}. Dreams clip a policy's actions "
            "to it: give the dataset its real bounds.", Note, stacklevel=3,
        )
    peers = processes(device)
    log = tensorboard_log(tensorboard if peers.main else None)
    how = (torch.device(device), progress and peers.main, log, peers)
    if out is None:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            world = fit_world(Fitting(data, settings, seed, Path(peers.tell(scratch)), *how))
            peers.wait()
            return world
    target = Path(out).expanduser()
    check_free(target, overwrite, WORLD)
    folder = target.with_name(target.name + ".partial")
    with sole_writer(target) if peers.main else nullcontext():
        claim(folder, peers, overwrite, dataset=data.spec.fingerprint, preset=settings.to_dict(), seed=seed)
        world = fit_world(Fitting(data, settings, seed, folder, *how))
        if peers.main:
            world.save(target, overwrite=overwrite)
            shutil.rmtree(folder)
    peers.wait()
    return world


def claim(folder: Path, peers: Processes, overwrite: bool, **recipe: Any) -> None:
    """Make the folder of an unfinished fit, or go on in it.

    Raises:
        DyDiffError: where it holds a fit of another recipe, and ``overwrite`` is off.
    """
    noted, text = folder / "claim.json", json.dumps(recipe, sort_keys=True)
    if peers.main and overwrite and noted.exists() and noted.read_text() != text:
        shutil.rmtree(folder)
    if peers.main and not noted.exists():  # what stages have left there is of a fit whose removal was cut short
        for left in (*folder.glob("*.pt"), *folder.glob("*.npy"), *folder.glob("*.json")):
            left.unlink()
    peers.wait()
    folder.mkdir(parents=True, exist_ok=True)
    if peers.main and not noted.exists():
        with replacing(noted) as partial:
            partial.write_text(text)
    peers.wait()
    if noted.read_text() != text:
        raise DyDiffError(
            f"{folder} holds an unfinished fit of another dataset, preset or seed.",
            f"Finish that one with its own arguments, or start anew with --overwrite, which deletes {folder}.",
            usage=True,
        )


def fit_world(fitting: Fitting) -> World:
    """All stages; returns the world."""
    data = fitting.data
    record: dict[str, Any] = {
        "dataset": {
            "id": data.spec.dataset_id,
            "fingerprint": data.spec.fingerprint,
            "episodes": len(data),
            "transitions": data.transitions,
            "longest": int(data.lengths.max()),
        },
        "seed": fitting.seed,
    }
    with fast_products(fitting.device):
        if fitting.progress and fitting.peers.count == 1:  # the rehearsal is of one process
            from dydiff_env.world.estimate import announce_fit  # it rehearses fits: it stands above

            announce_fit(fitting)
        record["training"], scale = fit_stages(fitting)
        world = World(
            data.spec, fitting.preset, fitting.models, fitting.normalizer, scale, *_start_banks(fitting), record
        )
        record["parameters"] = {
            name: sum(p.numel() for p in part.parameters()) for name, part in fitting.models.named_children()
        }
        record["fidelity"] = held_out_fidelity(world, fitting.batches, fitting.split.held_out, seed=fitting.seed)
    if fitting.preset.anchors is not None:
        refinement, record["refinement"] = choose_refinement(world.preset.refinement, record["fidelity"])
        world.preset = dataclasses.replace(world.preset, refinement=refinement)
    return world


def fit_stages(fitting: Fitting) -> tuple[dict[str, Any], ErrorScale | None]:
    """Train every part in its order; returns the records of their training, and the error scale of an anchored world."""
    training: dict[str, Any] = {}
    training["reward"] = fit_reward(fitting)
    training["termination"] = fit_termination(fitting)
    training["dynamics"] = fit_dynamics(fitting)
    training["termination"] = fit_drawn_ends(fitting, training["termination"])
    if fitting.preset.anchors is None:
        training["denoiser"] = fit_free_denoiser(fitting)
        return training, None
    training["behavior"] = fit_behavior(fitting)
    began = time.monotonic()
    bank, scale = roll_out_anchors(fitting)
    training["anchors"] = {
        "windows": len(bank["clone"]),
        "seconds": round(time.monotonic() - began, 1),
    }
    training["denoiser"] = fit_anchored_denoiser(fitting, bank, scale)
    return training, scale


def _start_banks(fitting: Fitting) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """States that dreams may start from: any but the last of an episode, and the first ones; and the steps before the former."""
    data, rng = fitting.data, fitting.rng
    some = np.sort(rng.choice(data.transitions, min(BANK, data.transitions), replace=False))
    first = np.sort(rng.choice(len(data), min(BANK, len(data)), replace=False))
    rows = (some + data.episode_of(some), data.offsets[first] + first)
    anywhere, initial = (np.array(data.observations[index], np.float32) for index in rows)
    if not fitting.preset.dynamics.memory:
        return anywhere, initial, None
    known = some > data.offsets[data.episode_of(some)]
    earlier = some - known
    before = np.concatenate([data.observations[earlier + data.episode_of(earlier)], data.actions[earlier]], 1).astype(np.float32)
    before[~known] = np.nan
    return anywhere, initial, before


def tensorboard_log(folder: str | Path | None) -> Callable[[str, float, int], None] | None:
    """TensorBoard's ``add_scalar`` for a folder.

    Raises:
        DyDiffError: without TensorBoard.
    """
    return None if folder is None else summary_writer()(str(Path(folder).expanduser()), flush_secs=5).add_scalar
