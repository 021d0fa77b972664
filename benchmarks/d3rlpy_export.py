"""Train a moment with d3rlpy, export its policy from a world, and compare the stored actions with d3rlpy's own.

d3rlpy 2.8 pins gymnasium 1.0.0, so it wants an environment of its own:

    python -m venv d3 && d3/bin/pip install d3rlpy && d3/bin/pip install --no-deps . minari safetensors filelock
    d3/bin/python benchmarks/d3rlpy_export.py --dataset DATASET --world WORLD --out benchmarks/results/d3rlpy_export.json

The export is then read back by d3rlpy's MDPDataset and trained on for a moment.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import d3rlpy
import minari
import numpy as np

from dydiff_env.data.minari_io import load_dataset
from dydiff_env.errors import DyDiffError
from dydiff_env.synthesis.export import export


def d3_dataset(folder: Path, most: int) -> d3rlpy.dataset.MDPDataset:
    """Up to ``most`` transitions of a Minari folder as d3rlpy takes them."""
    flat = load_dataset(folder, cache=False).flat()
    rows = slice(0, most)
    ends = np.where(flat.terminated > 0, False, flat.ends)[rows]
    if not (ends[-1] or flat.terminated[rows][-1]):
        ends[-1] = True
    return d3rlpy.dataset.MDPDataset(
        flat.observations[rows], flat.actions[rows], flat.rewards[rows], flat.terminated[rows], ends
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder, report = Path(tempfile.mkdtemp()), {}
    logged = d3_dataset(options.dataset, 20_000)
    configs = {
        "TD3+BC": d3rlpy.algos.TD3PlusBCConfig(
            observation_scaler=d3rlpy.preprocessing.StandardObservationScaler()
        ),
        "SAC": d3rlpy.algos.SACConfig(),
        "BC": d3rlpy.algos.BCConfig(),
    }
    quiet = {"logger_adapter": d3rlpy.logging.NoopAdapterFactory(), "show_progress": False}
    for name, config in configs.items():
        algorithm = config.create(device=False)
        algorithm.fit(logged, n_steps=200, n_steps_per_epoch=200, **quiet)
        file, out = folder / f"{name}.d3", folder / f"{name}.minari"
        algorithm.save(str(file))
        try:
            export(options.world, file, out, batch=50, horizon=20)
            raise SystemExit("a pickle was loaded without trust")
        except DyDiffError as error:
            refusal = str(error).replace(f"{folder}/", "")
        export(options.world, file, out, batch=50, horizon=20, trust=True)
        worst = 0.0
        for episode in minari.MinariDataset(out).iterate_episodes():
            own = algorithm.predict(episode.observations[:-1].astype(np.float32))
            worst = max(worst, float(np.abs(np.clip(own, -1, 1) - episode.actions).max()))
        synthetic = d3_dataset(out, 1_000)
        d3rlpy.algos.BCConfig().create(device=False).fit(synthetic, n_steps=20, n_steps_per_epoch=20, **quiet)
        report[name] = {
            "largest_difference": worst,
            "within_1e-4": worst < 1e-4,
            "without_trust": refusal,
            "read_back_transitions": synthetic.transition_count,
        }
    versions = {name: version(name) for name in ("d3rlpy", "gymnasium", "torch", "minari")}
    document = {"command": " ".join(["python", *sys.argv]), "versions": versions, "algorithms": report}
    print(json.dumps(document, indent=1))
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    raise SystemExit(0 if all(found["within_1e-4"] for found in report.values()) else 1)


if __name__ == "__main__":
    main()
