"""`--overwrite` takes the place of its own kind, and of nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dydiff_env.agents import BC, Run, train_seeds
from dydiff_env.agents.loop import LoopConfig, loop
from dydiff_env.data.collect import CollectConfig, collect_tier
from dydiff_env.data.minari_io import load_dataset, write_dataset
from dydiff_env.data.registry import Destination
from dydiff_env.errors import DyDiffError
from dydiff_env.lock import sole_writer
from dydiff_env.synthesis.export import export
from dydiff_env.synthesis.mix import mix
from dydiff_env.world.world import World

FEW: dict[str, Any] = {"batch": 4, "horizon": 2, "iterations": 0}


def test_somebodys_folder_stays(tiny_world: World, hopper_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    for write in (
        lambda: export(tiny_world, "random", folder, overwrite=True, **FEW),
        lambda: mix([hopper_folder], [], folder, overwrite=True),
        lambda: tiny_world.save(folder, overwrite=True),
        lambda: World.fit(hopper_folder, preset="tiny", out=folder, overwrite=True),
    ):
        with pytest.raises(DyDiffError, match="it stays"):
            write()
    assert (folder / "thesis.txt").read_text() == "precious"
    file = tmp_path / "notes"
    file.write_text("too")
    with pytest.raises(DyDiffError, match="it stays"):
        export(tiny_world, "random", file, overwrite=True, **FEW)
    assert file.read_text() == "too"


def test_an_input_stays(tiny_world_path: Path, hopper_folder: Path, tmp_path: Path) -> None:
    world, log = shutil.copytree(tiny_world_path, tmp_path / "world"), shutil.copytree(hopper_folder, tmp_path / "log")
    with pytest.raises(DyDiffError, match="is not a dataset: it stays"):
        export(world, "random", world, overwrite=True, **FEW)
    with pytest.raises(DyDiffError, match="is not a world: it stays"):
        World.fit(log, preset="tiny", out=log, overwrite=True)
    with pytest.raises(DyDiffError, match="one of the datasets to mix"):
        mix([log], [], log, overwrite=True)
    World.load(world)
    assert load_dataset(log).transitions == load_dataset(hopper_folder).transitions


def test_its_own_kind_and_an_empty_folder_are_replaced(tiny_world: World, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(tiny_world, "random", tmp_path / "out", overwrite=True, **FEW)
    export(tiny_world, "random", tmp_path / "out", overwrite=True, **FEW)
    with pytest.raises(DyDiffError, match="exists"):
        export(tiny_world, "random", tmp_path / "out", **FEW)


def test_a_link_is_not_taken_for_what_it_points_to(tiny_world: World, tmp_path: Path) -> None:
    tiny_world.save(tmp_path / "elsewhere")
    (tmp_path / "world").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DyDiffError, match=r"is a link.*elsewhere"):
        tiny_world.save(tmp_path / "world", overwrite=True)
    assert (tmp_path / "world").is_symlink() and World.load(tmp_path / "world")


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_no_name_is_no_folder(tiny_world: World, name: str) -> None:
    with pytest.raises(DyDiffError, match="not a name"):
        tiny_world.save(name, overwrite=True)
    with pytest.raises(DyDiffError, match="not a name"):
        export(tiny_world, "random", name, **FEW)
    with pytest.raises(DyDiffError, match="not a name"):
        collect_tier("Hopper-v5", Destination(out=Path(name)), CollectConfig(steps=10, tier="random"))


def test_a_loop_deletes_nothing_but_its_own(tiny_world: World, hopper_dataset: Any, tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "film.mp4").write_text("precious")
    agent = BC(hopper_dataset.spec)
    with pytest.raises(DyDiffError, match=r"film.mp4 is none of a loop's: it stays"):
        loop(agent, tiny_world, hopper_dataset, tmp_path, LoopConfig(rounds=1, updates=1, batch=4, horizon=2))
    (tmp_path / "rollouts" / "film.mp4").rename(tmp_path / "best.pt")
    with pytest.raises(DyDiffError, match=r"best.pt is none of a loop's: it stays"):
        loop(agent, tiny_world, hopper_dataset, tmp_path, LoopConfig(rounds=1, updates=1, batch=4, horizon=2))


def test_one_process_writes_at_a_time(tiny_world: World, hopper_dataset: Any, hopper_folder: Path, tmp_path: Path) -> None:
    out, best = tmp_path / "out", tmp_path / "ckpt-seed0-best.pt"  # of a run beside one that goes on
    best.write_text("precious")
    writes = (
        lambda: loop(BC(hopper_dataset.spec), tiny_world, hopper_dataset, out, LoopConfig(rounds=1, updates=1, batch=4, horizon=2)),
        lambda: collect_tier("Hopper-v5", Destination(out=out, overwrite=True), CollectConfig(steps=10, tier="random")),
        lambda: write_dataset(out, hopper_dataset, overwrite=True),
        lambda: train_seeds(Run("bc", str(hopper_folder), tmp_path / "ckpt.pt", steps=2), [0, 1]),
    )
    with sole_writer(out), sole_writer(tmp_path / "ckpt-seed1.pt"):
        for write in writes:
            with pytest.raises(DyDiffError, match="Another process is writing"):
                write()
    assert best.exists() and not out.exists() and not list(tmp_path.glob("*.lock"))


def test_collect_leaves_a_folder_that_happens_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "log-policies").mkdir()
    (tmp_path / "log-policies" / "mine.txt").write_text("precious")
    config = CollectConfig(steps=64, num_envs=2, score_episodes=1)
    with pytest.raises(DyDiffError, match="log-policies exists"):
        collect_tier("Hopper-v5", Destination(out=tmp_path / "log"), replace(config, tier="random"))
    assert [path.name for path in tmp_path.rglob("*")] == ["log-policies", "mine.txt"]
