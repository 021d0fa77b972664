"""An export is what it says: the policy's own actions, the share that was asked for, whole or not there."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
import torch

from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.minari_writer import MinariWriter
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.lock import sole_writer
from dydiff_env.synthesis import workers as pools
from dydiff_env.synthesis.export import export
from dydiff_env.synthesis.rounds import RoundOptions, cut_uncertain
from dydiff_env.world.world import World

SMALL: dict[str, Any] = {"horizon": 6, "batch": 10, "keep": 0.7, "iterations": 1}


@pytest.fixture(scope="session")
def linear_policy(tmp_path_factory: pytest.TempPathFactory, tiny_world: Any) -> Path:
    """A TorchScript policy file that reads every number of the observation."""
    torch.manual_seed(0)
    spec = tiny_world.spec
    network = torch.nn.Sequential(torch.nn.Linear(spec.observation_size, spec.action_size), torch.nn.Tanh())
    path = tmp_path_factory.mktemp("policy") / "linear.pt"
    torch.jit.script(network).save(str(path))
    return path


def arrays(path: Path) -> list[np.ndarray]:
    dataset = load_dataset(path, cache=False)
    return [dataset.observations, dataset.actions, dataset.rewards, dataset.terminations, dataset.offsets]


def same(a: Path, b: Path) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def provenance(path: Path) -> dict[str, Any]:
    return json.loads(json.loads((path / "metadata.json").read_text())["dydiff_env"])


def test_minari_opens_it_with_the_spaces_and_actions_it_promises(
    tiny_world: Any, linear_policy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "syn.minari"
    report = export(tiny_world, linear_policy, out, trajectories=17, **SMALL)
    dataset = minari.MinariDataset(out)
    assert dataset.total_episodes == report["trajectories"] == 17  # rounds of ⌊.7 · 10⌋ = 7, 7 and 3
    assert dataset.total_steps == report["transitions"]
    assert dataset.observation_space == tiny_world.spec.observation_space
    assert dataset.action_space == tiny_world.spec.action_space
    assert dataset.recover_environment().spec.id == "Hopper-v5"
    policy = torch.jit.load(str(linear_policy))
    for episode in dataset.iterate_episodes():
        acted = policy(torch.as_tensor(episode.observations[:-1], dtype=torch.float32)).detach().numpy()
        assert np.abs(acted - episode.actions).max() < 1e-4
        assert np.isfinite(episode.rewards).all()
        assert episode.terminations[-1] != episode.truncations[-1]
        assert not episode.terminations[:-1].any() and not episode.truncations[:-1].any()
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob("*.lock"))


def test_provenance_tells_how_it_was_made(tiny_world: Any, linear_policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "syn.minari"
    export(tiny_world, linear_policy, out, **SMALL, seed=3)
    facts = provenance(out)
    assert facts["options"] | {"seed": 3, "filter": "softmax", "trajectories": 7} == facts["options"]
    assert facts["policy"]["kind"] == "torchscript" and len(facts["policy"]["fingerprint"]) == 64
    assert facts["world"]["dataset_fingerprint"] == tiny_world.spec.fingerprint
    (only,) = facts["rounds"]
    assert (only["starts"], only["kept"]) == (10, 7)
    assert only["returns_kept"]["mean"] >= only["returns_all"]["mean"] - only["returns_all"]["std"]
    assert only["uncertainty"] > 0


def test_the_seed_decides_the_data(tiny_world: Any, linear_policy: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        export(tiny_world, linear_policy, tmp_path / name, **SMALL, seed=seed)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


def test_two_workers_write_what_one_writes(
    tiny_world_path: Path, linear_policy: Path, tmp_path: Path
) -> None:
    for workers in (1, 2):
        export(
            tiny_world_path, linear_policy, tmp_path / str(workers), trajectories=21, workers=workers, **SMALL
        )
    assert same(tmp_path / "1", tmp_path / "2")


KILLED = """
import os, sys
from dydiff_env.data.minari_writer import MinariWriter
from dydiff_env.synthesis.export import export
append, after = MinariWriter.append, int(sys.argv[4])
def dies(self, *args, **kwargs):
    if self.parts == after:
        os.kill(os.getpid(), 9)
    append(self, *args, **kwargs)
MinariWriter.append = dies
export(*sys.argv[1:4], trajectories=21, horizon=6, batch=10, keep=0.7, iterations=1)
"""


def test_a_killed_export_resumes_to_the_same_data(
    tiny_world_path: Path, linear_policy: Path, tmp_path: Path
) -> None:
    export(tiny_world_path, linear_policy, tmp_path / "whole", trajectories=21, **SMALL)
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(tiny_world_path), str(linear_policy), str(out), "2"]
    assert subprocess.run(command, check=False).returncode == -9
    assert not out.exists() and (tmp_path / "killed.partial").is_dir()
    with pytest.raises(DyDiffError, match="--resume"):
        export(tiny_world_path, linear_policy, out, trajectories=21, **SMALL)
    with pytest.raises(DyDiffError, match="seed was 0"):
        export(tiny_world_path, linear_policy, out, trajectories=21, **SMALL, seed=5, resume=True)
    assert (
        export(tiny_world_path, linear_policy, out, trajectories=21, **SMALL, resume=True)["trajectories"]
        == 21
    )
    assert same(tmp_path / "whole", out)


def test_an_export_is_not_gone_on_with_under_another_rule(tiny_world: Any, linear_policy: Path, tmp_path: Path) -> None:
    few = {"trajectories": np.int64(4), "batch": 5, "seed": np.arange(3)[1], "horizon": np.int64(6)}  # as loops over NumPy's numbers give
    export(tiny_world, linear_policy, tmp_path / "out", **few)
    world = copy.deepcopy(tiny_world)
    world.use_termination(lambda states: states[..., 0] > 0)
    with pytest.raises(DyDiffError, match="exists"):
        export(world, linear_policy, tmp_path / "out", resume=True, **few)
    before = export(tiny_world, linear_policy, tmp_path / "out", resume=True, **few)
    assert export(world, linear_policy, tmp_path / "ruled", **few)["transitions"] < before["transitions"]


@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_round_is_dreamt_again(
    tiny_world: Any, linear_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    export(tiny_world, linear_policy, tmp_path / "whole", trajectories=21, **SMALL)
    out, append = tmp_path / "syn.minari", MinariWriter.append

    def stops(self: MinariWriter, *args: Any) -> None:
        if self.parts == 2:
            raise KeyboardInterrupt
        append(self, *args)

    monkeypatch.setattr(MinariWriter, "append", stops)
    with pytest.raises(KeyboardInterrupt):
        export(tiny_world, linear_policy, out, trajectories=21, **SMALL)
    monkeypatch.undo()
    first, second = sorted((tmp_path / "syn.minari.partial").rglob("part-*.npz"))
    if missing:
        first.unlink()
    else:
        second.write_bytes(second.read_bytes()[:-50])
    export(tiny_world, linear_policy, out, trajectories=21, **SMALL, resume=True)
    assert same(tmp_path / "whole", out)


def test_an_output_is_replaced_only_when_asked(tiny_world: Any, linear_policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "syn.minari"
    export(tiny_world, linear_policy, out, **SMALL)
    before = arrays(out)
    with pytest.raises(DyDiffError, match="exists"):
        export(tiny_world, linear_policy, out, **SMALL, seed=1)
    assert all(np.array_equal(x, y) for x, y in zip(before, arrays(out), strict=True))
    export(tiny_world, linear_policy, out, **SMALL, seed=1, overwrite=True)
    assert not np.array_equal(before[0], arrays(out)[0])


def test_two_exports_into_one_folder_do_not_mix(tiny_world: Any, linear_policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "syn.minari"
    with sole_writer(out), pytest.raises(DyDiffError, match="Another process is writing"):
        export(tiny_world, linear_policy, out, **SMALL)
    assert not out.exists()


def test_a_registered_export_is_found_by_its_id(
    tiny_world: Any, linear_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "registry"))
    export(tiny_world, linear_policy, tmp_path / "syn.minari", **SMALL, dataset_id="test/syn-v0")
    assert minari.load_dataset("test/syn-v0").total_episodes == 7
    with pytest.raises(DyDiffError, match="test/syn-v0 exists"):
        export(tiny_world, linear_policy, tmp_path / "again.minari", **SMALL, dataset_id="test/syn-v0")
    export(tiny_world, linear_policy, tmp_path / "syn.minari", **SMALL, dataset_id="test/syn-v0", resume=True)  # is done


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter": "best"}, "no filter 'best'"),
        ({"keep": 0.01}, "keeps nothing"),
        ({"keep": 1.5}, "share to keep"),
        ({"horizon": 0}, "--horizon is 0"),
        ({"iterations": -1}, "--iterations is -1"),
        ({"workers": 0}, "--workers is 0"),
        ({"start": "middle"}, "no kind of start 'middle'"),
        ({"dataset_id": "no id"}, "no Minari dataset id"),
    ],
)
def test_wrong_options_leave_nothing_behind(
    tiny_world: Any, linear_policy: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DyDiffError, match=message) as caught:
        export(tiny_world, linear_policy, tmp_path / "syn.minari", **{**SMALL, **options})
    assert caught.value.usage and os.listdir(tmp_path) == []


def test_a_threshold_that_cuts_everything_is_named(tiny_world: Any, linear_policy: Path, tmp_path: Path) -> None:
    with pytest.raises(DyDiffError, match="every rollout"):
        export(tiny_world, linear_policy, tmp_path / "syn.minari", **SMALL, max_uncertainty=0.0)
    assert not [name for name in os.listdir(tmp_path) if "lock" not in name]


def test_a_full_disk_is_told_and_resumed(
    tiny_world: Any, linear_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second round's file cannot be synced, as on a full disk."""
    out, calls = tmp_path / "syn.minari", []
    sync = os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DyDiffError, match=r"No space left.*1 of 3 rounds.*--resume"):
        export(tiny_world, linear_policy, out, trajectories=21, **SMALL)
    assert not out.exists()
    assert export(tiny_world, linear_policy, out, trajectories=21, **SMALL, resume=True)["trajectories"] == 21


def test_uncertain_tails_are_cut_as_truncations() -> None:
    uncertainties = np.array([[0, 0, 9, 0], [9, 0, 0, 0], [0, 0, 0, 9]], np.float32)
    rollouts = Trajectories(np.zeros((3, 5, 2)), np.zeros((3, 4, 1)), np.ones((3, 4)), np.array([True, True, True]),
                            np.array([4, 4, 3]), uncertainties)  # fmt: skip
    cut, hit = cut_uncertain(rollouts, 1.0)
    assert hit == 2
    assert cut.lengths.tolist() == [2, 3] and cut.terminations.tolist() == [False, True]


def test_rounds_add_up_to_what_was_asked() -> None:
    assert RoundOptions(1638).batches() == [2048]
    assert RoundOptions(17, batch=10, keep=0.7).batches() == [10, 10, 5]
    for n in range(1, 60):
        options = RoundOptions(n, batch=10, keep=0.7)
        assert sum(int(0.7 * b + 1e-9) for b in options.batches()) == n


def test_without_a_filter_everything_is_kept(tiny_world: Any, linear_policy: Path, tmp_path: Path) -> None:
    document = export(tiny_world, linear_policy, tmp_path / "all", horizon=4, batch=10, filter="none")
    assert document["trajectories"] == 10
    with pytest.raises(DyDiffError, match="temperature"):
        export(tiny_world, linear_policy, tmp_path / "cold", horizon=4, batch=10, temperature=0.0)


def test_a_policy_that_other_processes_cannot_have_is_named(tiny_world, tmp_path):
    with pytest.raises(DyDiffError, match="cannot be sent"):
        export(tiny_world, lambda rows: torch.zeros(len(rows), 3), tmp_path / "syn", batch=8, trajectories=30, horizon=2, workers=2)


@pytest.mark.parametrize("changed", ["world", "policy"])
def test_a_worker_makes_no_rounds_of_what_has_changed(tiny_world, monkeypatch, changed: str) -> None:
    opened = pools.Sources(tiny_world, "random").open()
    now = pools.facts(opened)
    monkeypatch.setattr(pools, "_opened", opened)
    monkeypatch.setattr(pools, "_facts", now)
    options = RoundOptions(horizon=4, batch=8, trajectories=8)
    assert len(pools._run(now, options, 0)[0].lengths)
    with pytest.raises(DyDiffError, match=f"The {changed}'s file has changed"):
        pools._run({**now, changed: {"fingerprint": "another"}}, options, 0)


def test_trust_is_asked_once_an_export(tiny_world: Any, linear_policy: Path, tmp_path: Path, monkeypatch: Any) -> None:
    asked, trust_in = [], World.trust_in
    monkeypatch.setattr(World, "trust_in", lambda self, policy: asked.append(policy) or trust_in(self, policy))
    export(tiny_world, linear_policy, tmp_path / "syn", batch=520, keep=1.0, trajectories=1040, horizon=4, iterations=1, progress=True)
    assert len(asked) == 1  # neither the estimate nor the second round asks again


def test_more_workers_than_rounds_are_not_raised(tiny_world: Any, linear_policy: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(pools, "ProcessPoolExecutor", None)  # one round: no pool at all
    export(tiny_world, linear_policy, tmp_path / "syn", batch=8, horizon=2, workers=4)


def test_what_a_method_has_not_is_refused_at_once() -> None:
    with pytest.raises(DyDiffError, match="synther have no uncertainties"):
        RoundOptions(8, method="synther", horizon=1, filter="none", max_uncertainty=0.5, iterations=0).check()


CHILD = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from dydiff_env.children import die_with_parent

def main():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, die_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()

if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at Linux's processes")
def test_workers_do_not_outlive_a_process_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(CHILD)
    with subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        stat = Path("/proc", parent.stdout.readline().strip(), "stat")
        assert stat.exists()
        parent.kill()

    def lives() -> bool:
        try:
            return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"  # one that nobody has buried yet is dead all the same
        except (FileNotFoundError, ProcessLookupError):
            return False

    until = time.monotonic() + 30
    while lives() and time.monotonic() < until:
        time.sleep(0.05)
    assert not lives()
