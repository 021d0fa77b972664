"""Minari datasets, by id or by folder, as one flat Dataset."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import h5py
import numpy as np
from minari import MinariDataset
from minari.dataset.minari_storage import MinariStorage
from minari.serialization import deserialize_space

from dydiff_env.data.cache import cache_entry, read_entry, write_entry
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode, check_episode
from dydiff_env.data.environment import environment_spec
from dydiff_env.data.flattening import check_spaces, flatten_batch
from dydiff_env.data.minari_writer import write_dataset
from dydiff_env.data.registry import registered_folder, registry_root
from dydiff_env.data.simulator import make_env
from dydiff_env.errors import DyDiffError

__all__ = ["Source", "load_dataset", "read_metadata", "resolve_dataset", "write_dataset"]


Source: TypeAlias = Dataset | MinariDataset | str | Path
"""What names logged episodes; see :func:`load_dataset`."""


def load_dataset(source: Source, cache: bool = True) -> Dataset:
    """Every episode of a Minari dataset, flattened to float32.

    Args:
        source: a Minari id (``NAMESPACE/NAME-vK``, found where Minari keeps its data), a folder that
            ``minari.MinariDataset`` opens, such a dataset itself with the episodes it was filtered to, or a Dataset,
            which is returned unchanged.
        cache: keep the arrays memory-mapped under ``$DYDIFF_ENV_CACHE`` or ``~/.cache/dydiff-env``, so that
            the next load is instant and takes no memory. An entry is used only while the folder's files are
            unchanged.

    Returns:
        The dataset, without episodes of no steps.

    Raises:
        DyDiffError: where there is no such dataset, it is broken or empty, its spaces are not continuous, or
            a number in it is not finite.
    """
    if isinstance(source, Dataset):
        return source
    folder = resolve_dataset(source)
    if isinstance(source, MinariDataset):
        return _read(folder, source.episode_indices)
    entry = cache_entry(folder) if cache else None
    cached = read_entry(entry) if entry else None
    if cached is not None:
        return cached
    dataset = _read(folder)
    return write_entry(entry, dataset) if entry else dataset


def resolve_dataset(source: MinariDataset | str | Path) -> Path:
    """The data folder of an id, a path or an open dataset.

    Raises:
        DyDiffError: where there is none, naming ids that look alike.
    """
    if isinstance(source, MinariDataset):
        return Path(str(source.storage.data_path))
    folder = Path(source).expanduser()
    for candidate in (folder, folder / "data", registered_folder(str(source))):
        if (candidate / "metadata.json").is_file():
            return candidate
    if folder.is_dir():
        raise DyDiffError(f"{folder} is no Minari dataset: it has no metadata.json.",
                          "Give the folder that holds metadata.json, or a Minari id.")
    if folder.is_file():
        raise DyDiffError(f"{folder} is a file; a Minari dataset is a folder.",
                          "`dydiff-env import-d4rl` makes one of a D4RL file, `dydiff-env import-table` one of a table.")
    near = difflib.get_close_matches(str(source), _registered_ids(), n=3, cutoff=0.5)
    raise DyDiffError(f"No dataset {str(source)!r}: neither a folder nor a Minari id.",
                      f"Did you mean {', '.join(near)}?" if near else
                      "`minari list local` shows the ids on this machine, `minari download ID` fetches one.")


def _registered_ids() -> list[str]:
    root = registry_root()
    return [path.parent.parent.relative_to(root).as_posix() for path in root.glob("**/data/metadata.json")]


def _read(folder: Path, only: Iterable[int] | None = None) -> Dataset:
    """The dataset in ``folder``, or some of its episodes, from its own storage format."""
    metadata = read_metadata(folder)
    name = str(metadata.get("dataset_id", folder.name))
    observation_space, action_space = _spaces(metadata, name)
    check_spaces(observation_space, action_space, name)
    parts = []
    try:
        low, high = (None if metadata.get(key) is None else float(metadata[key])
                     for key in ("ref_min_score", "ref_max_score"))
        # Some logs were made with a limit of their own, and say in which environment policies are to be judged.
        environment = metadata.get("eval_env_spec") or metadata.get("env_spec")
        spec = DatasetSpec(observation_space, action_space, environment, name,
                           ref_min_score=low, ref_max_score=high)
        if only is None and metadata.get("data_format", "hdf5") == "hdf5":
            episodes = _hdf5_episodes(folder, metadata, observation_space, action_space)
        else:
            if only is None and not {"observation_space", "action_space"} <= metadata.keys():
                # Minari would make the environment, from whatever the file says is to be called.
                raise DyDiffError(f"{name} stores no spaces.", "Open it with Minari, if you trust where it came from, and pass that.")
            episodes = _minari_episodes(folder, only, observation_space, action_space)
        for index, episode in episodes:
            if len(episode.rewards):
                check_episode(spec, episode, index, name)
                parts.append(episode)
    except DyDiffError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise DyDiffError(f"{folder} cannot be read: {reason[0] if reason else type(error).__name__}.",
                          "The files are damaged or incomplete; write or download them again.") from error
    if not parts:
        raise DyDiffError(f"{name} ({folder}) is empty: it holds no transition.",
                          "Collect or download it again.")
    return Dataset.from_episodes(spec, parts)


def read_metadata(folder: Path) -> dict[str, Any]:
    """The Minari metadata of a data folder.

    Raises:
        DyDiffError: where they are damaged.
    """
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        if not isinstance(metadata, dict):
            raise ValueError("it is no JSON object")
        return metadata
    except (OSError, ValueError, RecursionError) as error:
        raise DyDiffError(f"{folder / 'metadata.json'} cannot be read: {error}.",
                          "Write or download the dataset again.") from error


def _spaces(metadata: dict[str, Any], name: str) -> tuple[gym.Space, gym.Space]:
    """The spaces the metadata name, else those of the environment they name."""
    if "observation_space" in metadata and "action_space" in metadata:
        try:
            return deserialize_space(metadata["observation_space"]), deserialize_space(metadata["action_space"])
        except Exception as error:
            raise DyDiffError(f"{name} has a space that cannot be read ({type(error).__name__}).",
                              "Its metadata.json is damaged; write or download the dataset again.") from error
    try:
        env = make_env(environment_spec(metadata["env_spec"]))
        env.close()
        return env.observation_space, env.action_space
    except (DyDiffError, KeyError) as error:
        raise DyDiffError(f"{name} stores no spaces, and its environment cannot be made: {error}",
                          "Install the package its environment comes from.") from error


Numbered = Iterator[tuple[int, Episode]]


def _hdf5_episodes(folder: Path, metadata: dict[str, Any], observation_space: gym.Space,
                   action_space: gym.Space) -> Numbered:
    """Straight from the file, only the arrays needed, by calls twice as fast as h5py's usual ones."""
    with h5py.File(folder / "main_data.hdf5", "r") as file:
        for index in range(int(metadata["total_episodes"])):
            group = h5py.h5g.open(file.id, f"episode_{index}".encode())
            terminations = _load(group, "terminations", None)
            yield index, Episode(
                flatten_batch(observation_space, _load(group, "observations", observation_space)),
                flatten_batch(action_space, _load(group, "actions", action_space)),
                _load(group, "rewards", None).astype(np.float32).reshape(-1),
                bool(len(terminations) and terminations[-1]))


def _load(group: h5py.h5g.GroupID, name: str, space: gym.Space | None) -> Any:
    """The array called ``name``, or a dict of them where the space is a Dict."""
    if isinstance(space, gym.spaces.Dict):
        inner = h5py.h5g.open(group, name.encode())
        return {key: _load(inner, key, part) for key, part in space.spaces.items()}
    stored = h5py.h5d.open(group, name.encode())
    array = np.empty(stored.shape, stored.dtype)
    stored.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array


def _minari_episodes(folder: Path, only: Iterable[int] | None, observation_space: gym.Space,
                     action_space: gym.Space) -> Numbered:
    """Through Minari: some episodes, or its other storage formats (Arrow, Parquet)."""
    storage = MinariStorage.read(folder)
    wanted = list(range(storage.total_episodes) if only is None else only)
    # Minari opens every episode's file before it reads the first: go in blocks.
    for block in range(0, len(wanted), 256):
        indices = wanted[block : block + 256]
        told = storage.get_episode_metadata(indices)
        for index, episode, facts in zip(indices, storage.get_episodes(indices), told, strict=True):
            if len(episode["rewards"]) != facts["total_steps"]:
                raise DyDiffError(f"Episode {index} has {facts['total_steps']} steps, of which Minari reads {len(episode['rewards'])}.",
                                  "It is longer than Minari can read from an Arrow file: store it as HDF5, or in shorter episodes.")
            yield index, Episode(
                flatten_batch(observation_space, episode["observations"]),
                flatten_batch(action_space, episode["actions"]),
                np.asarray(episode["rewards"], np.float32).reshape(-1),
                bool(len(episode["terminations"]) and episode["terminations"][-1]))
