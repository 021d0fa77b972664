"""Kill an export with SIGKILL at random moments, resume it, and compare its arrays with an uninterrupted one's.

    python benchmarks/export_kill.py --kills 20 --out benchmarks/results/export_kill.json

Uses the embedded world and its policy. Each run is killed once after a delay drawn uniformly from its whole duration,
then resumed to the end; a second kill of the same run is drawn with probability ½.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np


def command(out: Path, *more: str) -> list[str]:
    export = ["export", "--policy", "demo", "--out", str(out), "--trajectories", "1600", "--batch", "250"]
    program = str(Path(sys.executable).with_name("dydiff-env"))
    return [program, *export, "--iterations", "1", "--json", *more]


def arrays(folder: Path) -> dict[str, bytes]:
    """Every array of a Minari HDF5 folder, by its path in the file, as bytes."""
    found: dict[str, bytes] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = f"{item.dtype.str}{item.shape}".encode() + np.asarray(item).tobytes()

    with h5py.File(folder / "main_data.hdf5") as file:
        file.visititems(visit)
    return found


def state(out: Path) -> str:
    """What a killed run left."""
    if out.exists():
        return "published"
    parts = out.with_name(out.name + ".partial") / "parts"
    if not parts.is_dir():
        return "nothing"
    writing = (parts.parent / "main_data.hdf5").exists()
    return f"{len(list(parts.glob('part-*.npz')))} rounds{', publishing' if writing else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rng, folder = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="export-kill-"))
    begun = time.perf_counter()
    subprocess.run(command(folder / "whole"), check=True, capture_output=True)
    whole_seconds = time.perf_counter() - begun
    whole = arrays(folder / "whole")
    kills: list[dict[str, object]] = []
    runs = 0
    while len(kills) < options.kills:
        out = folder / f"run-{runs}"
        runs += 1
        for attempt in range(3):
            more = ["--resume"] if attempt else []
            process = subprocess.Popen(
                command(out, *more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            if attempt == 0 or (attempt == 1 and rng.random() < 0.5 and len(kills) < options.kills):
                after = rng.uniform(0.05, 1.05) * whole_seconds
                try:
                    process.wait(after)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    kills.append({"run": runs - 1, "after_seconds": round(after, 3), "left": state(out)})
                    continue
            _, errors = process.communicate()
            if process.returncode != 0:
                raise SystemExit(f"run {runs - 1} could not be resumed: {errors}")
            break
        mine = arrays(out)
        equal = mine.keys() == whole.keys() and all(mine[name] == whole[name] for name in whole)
        leftovers = [p.name for p in folder.glob(f"{out.name}.*") if not p.name.endswith(".lock")]
        for kill in kills:
            if kill["run"] == runs - 1:
                kill["equal"], kill["leftovers"] = equal, leftovers
        print(f"run {runs - 1}: equal {equal}, {len(kills)} kills so far", flush=True)
        shutil.rmtree(out)
    report = {
        "command": f"python benchmarks/export_kill.py --kills {options.kills} --seed {options.seed}",
        "uninterrupted_seconds": round(whole_seconds, 2),
        "arrays_compared": len(whole),
        "kills": len(kills),
        "equal": sum(bool(kill["equal"]) for kill in kills),
        "moments": kills,
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    shutil.rmtree(folder)
    raise SystemExit(0 if report["equal"] == report["kills"] else 1)


if __name__ == "__main__":
    main()
