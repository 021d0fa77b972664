"""A disk that is really full: the message, nothing half-published, and a resume that completes it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dydiff_env.data.minari_io import load_dataset
from dydiff_env.errors import DyDiffError
from dydiff_env.synthesis.export import export

OPTIONS: dict[str, Any] = {"trajectories": 80, "horizon": 32, "batch": 20, "keep": 0.8, "iterations": 0}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(line, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("cannot mount a file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("free", [50_000, 150_000, 230_000])
def test_a_full_disk(free: int, data_format: str, small_disk: Path, tiny_world: Any, tmp_path: Path) -> None:
    """Little room stops the rounds; more room, and it is the publication that fails."""
    export(tiny_world, "random", tmp_path / "whole", data_format=data_format, **OPTIONS)
    out, ballast = small_disk / "syn.minari", small_disk / "ballast"
    ballast.write_bytes(bytes(300 * 1024 - free))
    with pytest.raises(DyDiffError, match=r"No space left for .*of 5 rounds are done.*--resume"):
        export(tiny_world, "random", out, data_format=data_format, **OPTIONS)
    assert not out.exists()
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    report = export(tiny_world, "random", out, data_format=data_format, resume=True, **OPTIONS)
    assert report["trajectories"] == 80
    mine, whole = (load_dataset(path, cache=False) for path in (out, tmp_path / "whole"))
    for name in ("observations", "actions", "rewards", "terminations", "offsets"):
        assert np.array_equal(getattr(mine, name), getattr(whole, name)), name
