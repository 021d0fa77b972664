"""A Ray cluster writes what one process writes, also when a worker is killed midway."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dydiff_env.data.minari_io import load_dataset
from dydiff_env.errors import DyDiffError
from dydiff_env.synthesis.export import export

OPTIONS: dict[str, Any] = {"trajectories": 8 * 48, "horizon": 32, "batch": 64, "keep": 0.75, "iterations": 2}


def working() -> list[int]:
    """Process ids of Ray workers that are at a task: they are called after it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line.startswith(b"ray::run_round"):
                found.append(int(entry.name))
    return found


def kill_one(parts: Path, killed: list[int], stop: threading.Event) -> None:
    """Kill a worker as soon as a first round is on disk."""
    while not stop.is_set() and not killed:
        if list(parts.glob("part-*.npz")) and (at_work := working()):
            os.kill(at_work[0], signal.SIGKILL)
            killed.append(at_work[0])
        time.sleep(0.005)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the workers in /proc")
def test_two_ray_workers_one_killed_midway(tiny_world_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    export(tiny_world_path, "random", tmp_path / "serial", **OPTIONS)
    out, killed, stop = tmp_path / "ray", [], threading.Event()
    killer = threading.Thread(target=kill_one, args=(out.with_name("ray.partial") / "parts", killed, stop))
    killer.start()
    try:
        report = export(tiny_world_path, "random", out, workers=2, engine="ray", **OPTIONS)
    finally:
        stop.set()
        killer.join()
    assert killed and report["trajectories"] == 8 * 48
    serial, cluster = (load_dataset(tmp_path / name, cache=False) for name in ("serial", "ray"))
    for name in ("observations", "actions", "rewards", "terminations", "offsets"):
        assert np.array_equal(getattr(serial, name), getattr(cluster, name)), name


def test_without_ray_the_error_names_the_extra(
    tiny_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DyDiffError, match=r"pip install \"dydiff-env\[ray\]\""):
        export(tiny_world, "random", tmp_path / "syn", engine="ray")
    assert not list(tmp_path.iterdir())
