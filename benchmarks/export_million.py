"""Export a million transitions with the default settings and measure time, rate and memory; then read them back.

    python benchmarks/export_million.py --world WORLD --policy POLICY --workers 2 --out benchmarks/results/export_million.json

Memory is the resident set of the exporting process and its children together, sampled every second (shared pages are counted
in each). Reading back is timed as Minari's own iteration over the written dataset and over a reference dataset of Minari's
making (`--reference`, a folder), microseconds a transition, the files warm.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import minari
import numpy as np


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


def resident(pid: int) -> float:
    """Megabytes of a process and its descendants."""
    total = 0
    for one in tree(pid):
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * 4096
        except (OSError, ValueError, IndexError):
            continue
    return total / 1e6


def watch(command: list[str]) -> tuple[dict[str, Any], list[float], float]:
    """Run an export; its report, the memory each second, and the seconds it took."""
    begun, memory = time.perf_counter(), []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        memory.append(round(resident(process.pid), 1))
        time.sleep(1.0)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(
            f"the export ended with {process.returncode}; its rounds are kept: run again with --resume"
        )
    return json.loads(process.stdout.read()), memory, time.perf_counter() - begun


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
    report, memory, seconds = watch(command + (["--resume"] if options.resume else []))
    half = memory[len(memory) // 4 : len(memory) // 2] or memory
    rest = memory[3 * len(memory) // 4 :] or memory
    document: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        **sizes,
        "transitions": report["transitions"],
        "seconds": round(seconds, 1),
        "transitions_per_second": round(report["transitions"] / seconds, 1),
        "memory_peak_mb": max(memory),
        "memory_mean_second_quarter_mb": round(float(np.mean(half)), 1),
        "memory_mean_last_quarter_mb": round(float(np.mean(rest)), 1),
        "memory_mb_each_second": memory,
        "dataset_mb": round(
            sum(f.stat().st_size for f in options.scratch.rglob("*") if f.is_file()) / 1e6, 1
        ),
        "reading": {"written": reading(options.scratch)},
    }
    if options.reference:
        document["reading"]["reference"] = reading(options.reference)
    if not options.keep:
        shutil.rmtree(options.scratch)
    print(
        json.dumps(
            {key: value for key, value in document.items() if key != "memory_mb_each_second"}, indent=1
        )
    )
    if options.out:
        options.out.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
