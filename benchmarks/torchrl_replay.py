"""Read an export with TorchRL's MinariExperienceReplay and compare what it samples from with the export itself.

python benchmarks/torchrl_replay.py --out benchmarks/results/torchrl_replay.json     (needs torchrl)
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

HOME = Path(tempfile.mkdtemp())
os.environ["MINARI_DATASETS_PATH"] = str(HOME / "minari")

import numpy as np  # noqa: E402
from torchrl.data.datasets.minari_data import MinariExperienceReplay  # noqa: E402

import dydiff_env.embedded as embedded  # noqa: E402
from dydiff_env.data.minari_io import load_dataset  # noqa: E402
from dydiff_env.synthesis.export import export  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name = "local/syn-v0"
    export(embedded.WORLD, "demo", HOME / "syn.minari", batch=40, horizon=25, dataset_id=name)
    ours = load_dataset(HOME / "syn.minari", cache=False).flat()
    replay = MinariExperienceReplay(
        name, batch_size=256, root=HOME / "torchrl", load_from_local_minari=True, split_trajs=False
    )
    batch = replay.sample()
    whole = replay[:]
    observed = whole["observation", "observation"].numpy()
    position = [i for i, row in enumerate(ours.observations[0]) if np.isclose(row, observed[0]).any()]
    document = {
        "versions": {package: version(package) for package in ("torchrl", "tensordict", "torch", "minari")},
        "transitions": len(replay),
        "transitions_equal": len(replay) == len(ours.rewards),
        "batch": {str(key): list(value.shape) for key, value in batch.items(True, True)},
        "actions_equal": bool(np.allclose(whole["action"].numpy(), ours.actions, atol=1e-6)),
        "rewards_equal": bool(np.allclose(whole["next", "reward"].numpy().ravel(), ours.rewards, atol=1e-6)),
        "observation_columns_found": len(position),
    }
    print(json.dumps(document, indent=1))
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    raise SystemExit(
        0 if document["transitions_equal"] and document["actions_equal"] and document["rewards_equal"] else 1
    )


if __name__ == "__main__":
    main()
