"""Legacy D4RL files (Fu et al. 2020, arXiv 2004.07219) as episodes."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np

from dydiff_env.data.dataset import DatasetSpec, Episode, check_episode
from dydiff_env.data.minari_writer import MinariWriter
from dydiff_env.data.simulator import describe
from dydiff_env.errors import DyDiffError, Note, said
from dydiff_env.lock import sole_writer

# Returns of a random policy and of an expert that D4RL normalises scores with.
REFERENCE_SCORES = {
    "halfcheetah": (-280.178953, 12135.0), "hopper": (-20.272305, 3234.3), "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7), "maze2d-umaze": (23.85, 161.86), "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99), "maze2d-umaze-dense": (68.537689, 193.66285642381482),
    "maze2d-medium-dense": (44.264742, 297.4552547777125), "maze2d-large-dense": (30.569041, 303.4857382709002),
    "antmaze": (0.0, 1.0), "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867), "door": (-56.512833, 2880.5693087298737),
    "relocate": (-6.425911, 4233.877797728884)}
BLOCK = 50_000  # transitions looked at together


@dataclass(frozen=True)
class Import:
    """What became of a file.

    Args:
        path: the Minari folder.
        episodes: how many.
        transitions: how many.
        terminated: episodes that ended in a terminal state.
        dropped: transitions left out, since the file does not hold the state they led to.
        repeated: terminal states the file does not hold; the state before stands for each.
    """

    path: Path
    episodes: int
    transitions: int
    terminated: int
    dropped: int
    repeated: int


def import_d4rl(file: str | Path, path: str | Path, dataset_id: str, *, env: str | None = None,
                scores: tuple[float, float] | None = None, overwrite: bool = False) -> Import:
    """Write a D4RL HDF5 file as a Minari folder.

    An episode ends at ``terminals`` (a terminal state) or at ``timeouts`` (out of time: it bootstraps), and its
    final state comes from ``next_observations``. Older files do not have those: there the last transition of an
    episode that ran out of time is dropped, its state being the final one, and a terminal state, which is unknown,
    repeats the state before it.

    Args:
        file: the HDF5 file.
        path: the Minari folder to make.
        dataset_id: the id to store.
        env: id of today's environment with the same spaces; without it the dataset names none.
        scores: random and expert return; by default D4RL's own, told by the file's name.
        overwrite: replace ``path``.

    Raises:
        DyDiffError: where the file is missing, damaged or not D4RL's, or ``env`` has other spaces.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise DyDiffError(f"There is no file {file}.", "Give the .hdf5 file of a D4RL dataset.")
    try:
        with h5py.File(file, "r") as data:
            _check_layout(data, file)
            low, high = scores or _scores(file) or (None, None)
            spec = _spec(data, file, env, dataset_id, low, high)
            with sole_writer(Path(path).expanduser()), MinariWriter(path, spec, overwrite=overwrite) as writer:
                dropped, repeated, terminated = 0, 0, 0
                for index, (episode, stated) in enumerate(episodes_of(data)):
                    dropped += not stated and not episode.terminated
                    repeated += not stated and episode.terminated
                    if not len(episode.rewards):
                        continue
                    check_episode(spec, episode, index, file.name)
                    terminated += episode.terminated
                    writer.take(episode)
                folder = writer.publish(algorithm_name="D4RL", description=f"Imported from {file.name}",
                                        provenance={"command": "import-d4rl", "file": file.name})
                return Import(folder, writer.trajectories, writer.transitions, terminated, dropped, repeated)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DyDiffError(f"No space left for {path}.", "Free some, and import again.") from error
        if error.filename is not None and Path(str(error.filename)) != file:
            raise  # of what is written, not of what is read
        raise DyDiffError(f"{file} cannot be read: {said(error)}.",
                          "The file is damaged or incomplete; download it again.") from error
    except DyDiffError:
        raise
    except (KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:  # h5py's, for damage further inside
        raise DyDiffError(f"{file} cannot be read: {said(error)}.",
                          "The file is damaged or incomplete; download it again.") from error


def episodes_of(data: h5py.File) -> Iterator[tuple[Episode, bool]]:
    """The episodes of an open D4RL file, each with whether the file holds its final state."""
    terminals = data["terminals"][()].astype(bool).reshape(-1)
    timeouts = data["timeouts"][()].astype(bool).reshape(-1) if "timeouts" in data else _breaks(data)
    ends = np.flatnonzero(terminals | timeouts) + 1
    if not len(ends) or ends[-1] != len(terminals):
        ends = np.append(ends, len(terminals))  # the file stops in the middle of an episode
    for start, stop in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        observations = data["observations"][start:stop].astype(np.float32)
        actions = data["actions"][start:stop].astype(np.float32)
        rewards = data["rewards"][start:stop].astype(np.float32).reshape(-1)
        terminated = bool(terminals[stop - 1])
        stated = "next_observations" in data
        if stated:
            final = data["next_observations"][stop - 1:stop].astype(np.float32)
        elif terminated:
            final = observations[-1:]
        else:
            observations, final = observations[:-1], observations[-1:]
            actions, rewards = actions[:-1], rewards[:-1]
        yield Episode(np.concatenate([observations, final]), actions, rewards, terminated), stated


def _breaks(data: h5py.File) -> np.ndarray:
    """Where a file that says nothing of time-outs has one: the step led elsewhere than the next one begins, (T,) bool."""
    count = len(data["rewards"])
    found = np.zeros(count, bool)
    if "next_observations" not in data:
        warnings.warn(f"{Path(data.filename).name} has neither timeouts nor next_observations: episodes are taken to end in terminal "
                      "states alone.", Note, stacklevel=2)
        return found
    apart = np.maximum(1e-3 * data["observations"][:BLOCK].std(0), 1e-6)
    for start in range(0, count - 1, BLOCK):
        stop = min(start + BLOCK, count - 1)
        gap = data["next_observations"][start:stop] - data["observations"][start + 1:stop + 1]
        found[start:stop] = (np.abs(gap) > apart).any(-1)
    return found


def _check_layout(data: h5py.File, file: Path) -> None:
    missing = [name for name in ("observations", "actions", "rewards", "terminals") if name not in data]
    if missing:
        raise DyDiffError(f"{file} is not a D4RL file: it has no {', '.join(missing)}.",
                          "A Minari dataset needs no import; other data must be brought into D4RL's layout.")
    if data["observations"].ndim != 2 or data["actions"].ndim != 2:
        raise DyDiffError(f"{file} has observations of shape {data['observations'].shape[1:]} and actions of shape "
                          f"{data['actions'].shape[1:]}.", "Only state vectors and continuous actions can be imported.")
    if not len(data["rewards"]):
        raise DyDiffError(f"{file} is empty.", "Download it again.")


def _scores(file: Path) -> tuple[float, float] | None:
    name = file.stem.lower().replace("_", "-").replace("ant-maze", "antmaze") + "-"
    task = max((task for task in REFERENCE_SCORES if name.startswith(f"{task}-")), key=len, default=None)
    return None if task is None else REFERENCE_SCORES[task]


def _spec(data: h5py.File, file: Path, env: str | None, dataset_id: str, low: float | None,
          high: float | None) -> DatasetSpec:
    states, actions = data["observations"].shape[1], data["actions"].shape[1]
    if env is None:
        bound = max(1.0, float(np.abs(data["actions"][()]).max()))
        warnings.warn(f"{file.name} does not say what its actions' bounds are: -{bound:g} to {bound:g} is assumed. An environment "
                      "(--env) would say.", Note, stacklevel=2)
        return DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (states,), np.float32),
                           gym.spaces.Box(-bound, bound, (actions,), np.float32), None, dataset_id,
                           ref_min_score=low, ref_max_score=high)
    spec = replace(describe(env), dataset_id=dataset_id, ref_min_score=low, ref_max_score=high)
    if (spec.observation_size, spec.action_size) != (states, actions):
        raise DyDiffError(f"{file.name} has {states} observations and {actions} actions; {env} has "
                          f"{spec.observation_size} and {spec.action_size}.", "Name the environment it was made in.")
    return spec
