"""Making real environments: one clear error when they cannot be made, each of MuJoCo's warnings once."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.environment import environment_spec
from dydiff_env.data.flattening import canonical, check_spaces
from dydiff_env.errors import DyDiffError

Wrapper = Callable[[gym.Env], gym.Env]

ONLOOKERS = {"RecordEpisodeStatistics", "RecordVideo", "HumanRendering", "RenderCollection", "Monitor",
             "EpisodeRecorder", "DataCollector"}  # wrappers that change nothing

_seen: set[bytes] = set()


def make_env(spec: str | EnvSpec, **kwargs: Any) -> gym.Env:
    """``gymnasium.make`` of an id, or of the specification a dataset stores as JSON.

    Raises:
        DyDiffError: where the id is unknown or the environment's package is missing.
    """
    spec = _spec(spec)
    return _make(str(getattr(spec, "id", spec)), lambda: _ordered(gym.make(spec, **kwargs)))


def describe(env_id: str, **kwargs: Any) -> DatasetSpec:
    """Spaces and specification of an environment.

    Raises:
        DyDiffError: where it cannot be made, its spaces are not continuous, or no file can name it.
    """
    env = make_env(env_id, **kwargs)
    env.close()
    check_spaces(env.observation_space, env.action_space, env_id)
    assert env.spec is not None
    try:
        text = env.spec.to_json()
    except (TypeError, ValueError) as error:
        raise DyDiffError(f"{env_id} is registered with a class, a function or an argument that a dataset cannot name.",
                          'Register it with entry_point="module:Class", and with arguments that are plain values.') from error
    return DatasetSpec(env.observation_space, env.action_space, text)


def make_vec_env(spec: str | EnvSpec, num_envs: int, wrappers: Sequence[Wrapper] = (),
                 **kwargs: Any) -> gym.vector.SyncVectorEnv:
    """``num_envs`` copies in one process, each inside ``wrappers``; a reset takes a step of its own."""
    spec = _spec(spec)

    def one() -> gym.Env:
        env = _ordered(gym.make(spec, disable_env_checker=True, **kwargs))
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    return _make(str(getattr(spec, "id", spec)), lambda: gym.vector.SyncVectorEnv([one] * num_envs))


def _spec(spec: str | EnvSpec) -> str | EnvSpec:
    """What ``gym.make`` may be given: an id, or a registered environment with the specification's own arguments.

    A specification says which Python object to call with which arguments: taken at its word, a downloaded dataset could
    call anything. So only the arguments are taken from it, and what is called from Gymnasium's registry.
    """
    if isinstance(spec, str) and spec.lstrip().startswith("{"):
        spec = environment_spec(spec)
    name = spec if isinstance(spec, str) else spec.id
    if name.startswith(("PointMaze", "AntMaze", "Fetch", "Adroit", "FrankaKitchen")):
        _register_robotics(name)
    if isinstance(spec, str):
        if ":" in spec and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # package.module:ID may lie where the command is run
        return spec
    if name not in gym.registry:
        raise DyDiffError(f"The environment {name[:80]!r} is not registered here.",
                          "Import the package that registers it; a command takes --env package.module:ID, the working folder included.")
    found = copy.deepcopy(gym.registry[name])
    inside = [wrapper.name for wrapper in spec.additional_wrappers if wrapper.name not in ONLOOKERS]
    if inside != [wrapper.name for wrapper in found.additional_wrappers]:
        raise DyDiffError(f"The data come from {name} inside {', '.join(inside) or 'no wrapper'}; a file's wrappers are not made.",
                          "Register the wrapped environment under an id of its own; a command takes --env package.module:ID.")
    if spec.kwargs.get("policy") is not None and name.startswith("DyDiffDream"):
        raise DyDiffError("The data come from a dream that follows a policy, and a file's policy is not loaded.", "Name one with --env.")
    found.kwargs.update({key: value for key, value in spec.kwargs.items() if key != "render_mode"})  # nobody looks on this time
    if spec.max_episode_steps is not None:
        found.max_episode_steps = spec.max_episode_steps
    return found


def _ordered(env: gym.Env) -> gym.Env:
    """The environment with the columns of its flattened observations in the datasets' order."""
    if isinstance(env.observation_space, gym.spaces.Dict):
        env.observation_space = canonical(env.observation_space)
    return env


def _register_robotics(name: str) -> None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it prints news of environments nobody asked for
            import gymnasium_robotics
    except ImportError as error:
        raise DyDiffError(f"{name} comes from gymnasium-robotics, which is not installed.",
                          'Run `pip install "dydiff-env[maze]"`.') from error
    gym.register_envs(gymnasium_robotics)


def _make(name: str, make: Callable[[], Any]) -> Any:
    try:
        with warnings_once():
            return make()
    except DyDiffError:
        raise
    except Exception as error:  # whatever its constructor makes of the arguments
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = str(error).strip() or f"{type(error).__name__} at {place.filename}:{place.lineno}"  # asserts are mute
        raise DyDiffError(f"The environment {name} cannot be made: {reason.splitlines()[0]}",
                          "Check the id, and the version of the package it comes from.") from error


@contextmanager
def warnings_once() -> Iterator[None]:
    """Show what native code prints to stderr inside, but each line once per process.

    MuJoCo's compiler warns there each time it loads a model: a vector of 64 would say the same 64 times.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        saved = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            lines = dict.fromkeys(caught.read().splitlines())  # a set that keeps their order
            fresh = [line for line in lines if line.strip() and line not in _seen]
            _seen.update(fresh)
            if fresh:
                os.write(2, b"\n".join(fresh) + b"\n")
