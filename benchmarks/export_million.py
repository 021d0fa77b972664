"""Export a million transitions with the default settings and measure time, rate and memory; then read them back.

    python benchmarks/export_million.py --world WORLD --policy POLICY --workers 2 --out benchmarks/results/export_million.json

Memory is the sum of the resident sets of the exporting process and its children, sampled every second: pages that they share
(libraries) are counted in each. "proportional" counts those once. The result keeps 200 points of the curve, each the most of
its stretch. Reading back is timed as Minari's own
iteration over the written dataset, over the same episodes stored by Minari itself (`create_dataset_from_buffers`), and over
another dataset if one is given (`--reference`, a folder): microseconds a transition, the files warm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import minari
import numpy as np
from minari.data_collector import EpisodeBuffer


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            for child in (task / "children").read_text().split():
                found += tree(int(child))
        except OSError:
            continue
    return found


def memory(pid: int) -> tuple[float, float]:
    """Megabytes of a process and its descendants: resident, and proportional (shared pages once)."""
    found = {"Rss": 0, "Pss": 0}
    for one in tree(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, rest = line.partition(":")
            if name in found:
                found[name] += int(rest.split()[0])
    return found["Rss"] * 1024 / 1e6, found["Pss"] * 1024 / 1e6


def watch(command: list[str]) -> tuple[dict[str, Any], np.ndarray, float]:
    """Run an export; its report, the memory each second (S, 2), and the seconds it took."""
    begun, curve = time.perf_counter(), []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        curve.append(memory(process.pid))
        time.sleep(1.0)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(
            f"the export ended with {process.returncode}; its rounds are kept: run again with --resume"
        )
    return json.loads(process.stdout.read()), np.array(curve), time.perf_counter() - begun


def reading(folder: Path, steps: int = 200_000) -> dict[str, float]:
    """Microseconds a transition of Minari's iteration, over at most ``steps`` transitions; the better of two passes."""
    dataset, best, count, length = minari.MinariDataset(folder), np.inf, 0, 0.0
    for _ in range(2):
        begun, count, episodes = time.perf_counter(), 0, 0
        for episode in dataset.iterate_episodes():
            count, episodes = count + len(episode.rewards), episodes + 1
            if count >= steps:
                break
        best, length = min(best, time.perf_counter() - begun), count / episodes
    return {
        "microseconds_per_transition": best / count * 1e6,
        "transitions": count,
        "steps_per_episode": length,
    }


def stored_by_minari(folder: Path, scratch: Path, episodes: int = 2000) -> Path:
    """The first episodes of a dataset, written once more by Minari; the folder it made."""
    dataset = minari.MinariDataset(folder)
    buffers = []
    for episode in islice(dataset.iterate_episodes(), episodes):
        names = ("observations", "actions", "rewards", "terminations", "truncations")
        buffers.append(EpisodeBuffer(id=episode.id, **{name: getattr(episode, name) for name in names}))
    spaces = {"observation_space": dataset.observation_space, "action_space": dataset.action_space}
    os.environ["MINARI_DATASETS_PATH"] = str(scratch)
    minari.create_dataset_from_buffers("benchmark/same-episodes-v0", buffers, env=dataset.env_spec, **spaces)
    return scratch / "benchmark" / "same-episodes-v0" / "data"


def thinned(curve: np.ndarray, points: int = 200) -> list[float]:
    """The largest value of each of at most ``points`` equal stretches."""
    return [round(float(part.max()), 1) for part in np.array_split(curve, min(points, len(curve)))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--horizon", type=int, default=100)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--reference", type=Path, help="a dataset of Minari's own making, to compare reading with"
    )
    parser.add_argument("--scratch", type=Path, default=Path("million.minari"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the dataset")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    program = [
        str(Path(sys.executable).with_name("dydiff-env")),
        "export",
        "--json",
        "--policy",
        options.policy,
    ]
    trajectories = -(-options.transitions // options.horizon)
    sizes = {
        "trajectories": trajectories,
        "horizon": options.horizon,
        "batch": options.batch,
        "workers": options.workers,
    }
    where = {"world": options.world, "out": options.scratch}
    command = program + [
        part for key, value in {**where, **sizes}.items() for part in (f"--{key}", str(value))
    ]
    load = os.getloadavg()[0]  # what other processes ask of the processors
    report, curve, seconds = watch(command + (["--resume"] if options.resume else []))
    resident, quarter = curve[:, 0], max(1, len(curve) // 4)
    document: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        **sizes,
        "transitions": report["transitions"],
        "seconds": round(seconds, 1),
        "transitions_per_second": round(report["transitions"] / seconds, 1),
        "memory_peak_mb": round(float(resident.max()), 1),
        "memory_peak_proportional_mb": round(float(curve[:, 1].max()), 1),
        "memory_mean_second_quarter_mb": round(float(resident[quarter : 2 * quarter].mean()), 1),
        "memory_mean_last_quarter_mb": round(float(resident[-quarter:].mean()), 1),
        "memory_mb_curve": thinned(resident),
        "load_average_before": round(load, 2),
        "dataset_mb": round(
            sum(f.stat().st_size for f in options.scratch.rglob("*") if f.is_file()) / 1e6, 1
        ),
        "reading": {"written": reading(options.scratch)},
    }
    with tempfile.TemporaryDirectory() as scratch:
        document["reading"]["same_episodes_by_minari"] = reading(
            stored_by_minari(options.scratch, Path(scratch))
        )
    if options.reference:
        document["reading"]["reference"] = reading(options.reference)
    if not options.keep:
        shutil.rmtree(options.scratch)
    print(json.dumps({key: value for key, value in document.items() if key != "memory_mb_curve"}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
