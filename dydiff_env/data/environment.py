"""Which environment a file says it comes from."""

from __future__ import annotations

import json

from gymnasium.envs.registration import EnvSpec

from dydiff_env.errors import DyDiffError


def environment_spec(text: str) -> EnvSpec:
    """The environment that a dataset or a world names in JSON. Nothing is imported or made.

    Raises:
        DyDiffError: where it is no specification.
    """
    try:
        known = EnvSpec.__dataclass_fields__
        fields = {key: value for key, value in json.loads(text).items() if key in known}
        if not isinstance(fields.get("kwargs", {}), dict):
            raise TypeError("kwargs")
        if isinstance(fields.get("max_episode_steps"), float):
            fields["max_episode_steps"] = int(fields["max_episode_steps"])  # Minari's logs of D4RL's mazes have 1e6
        return EnvSpec.from_json(json.dumps(fields))
    except Exception as error:
        raise DyDiffError(f"The file's environment cannot be read ({type(error).__name__}).",
                          "Name one with --env, or write the file again.") from error
