"""Mutate every kind of file that is read from strangers, and see that each one loads or is refused in clear words.

    python benchmarks/fuzz_files.py --inputs 10500 --out benchmarks/results/fuzz_files.json

Kinds: agent checkpoints (.pt), world.json, the headers of safetensors, baselines' JSON, Minari's metadata.json, and files
with a planted pickle or a planted call. What loads is used: a world dreams a step, an agent acts. An input passes when it
works or raises DyDiffError; a planted file passes when its side effect did not happen. Hypothesis draws the mutations. Each
kind runs in a process of its own with bounded memory, so that a crash is seen and counted.
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import torch
from hypothesis import strategies
from hypothesis.errors import StopTest

import dydiff_env.embedded as embedded
from dydiff_env.agents import agent_class
from dydiff_env.baselines import models as baselines
from dydiff_env.data.dataset import Dataset, DatasetSpec
from dydiff_env.data.minari_io import load_dataset, write_dataset
from dydiff_env.data.simulator import make_env
from dydiff_env.errors import DyDiffError
from dydiff_env.policies import load_policy
from dydiff_env.world.world import World

ODD: list[Any] = [None, True, -1, 0, 1, 2, 2**31, 2**63, 2**70, 1e308, -1e308, float("nan"), float("inf"), 0.5, "", "x",
                  "x" * 5000, "\x00", "{", "[]", [], [[]], [1, 2], {}, {"a": 1}, [0] * 200]  # fmt: skip
MEMORY = 12 << 30
SECONDS = 20


# --- mutations


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four damages: flipped, removed, repeated, overwritten or cut."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place, size = rng.randrange(max(1, len(data))), rng.choice([1, 2, 4, 8, 64, 512])
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place : place + size]
        elif kind == 2:
            data[place:place] = data[place : place + size]
        elif kind == 3:
            data[place : place + size] = rng.randbytes(size)
        elif kind == 4:
            data[place : place + size] = bytes(size)
        else:
            del data[place:]
    return bytes(data)


def mutate_json(value: Any, rng: random.Random) -> Any:
    """A deep copy with one to three entries replaced, removed, renamed or added; JSON inside strings too."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        _mutate_once(value, rng)
    return value


def _mutate_once(root: Any, rng: random.Random) -> None:
    node = root
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        child = node[key]
        if isinstance(child, (dict, list)) and child and rng.random() < 0.85:
            node = child
            continue
        if isinstance(child, str) and child[:1] in "{[" and child and rng.random() < 0.8:
            try:
                inner = json.loads(child)
                _mutate_once(inner, rng)
                node[key] = json.dumps(inner)
                return
            except ValueError:
                pass
        kind = rng.randrange(5)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[f"{key}_"] = node.pop(key)
        elif kind == 2 and isinstance(child, (int, float)) and not isinstance(child, bool):
            node[key] = rng.choice([-child, child + 1, child * 1000, child / 3])
        else:
            node[key] = copy.deepcopy(rng.choice(ODD))  # a later mutation may change it
        return


def mutate_text(document: dict[str, Any], rng: random.Random) -> bytes:
    """JSON, mutated as a tree or, one time in four, as bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(json.dumps(document).encode(), rng)
    return json.dumps(mutate_json(document, rng)).encode()


def mutate_header(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, its tensors as they were."""
    (size,) = struct.unpack("<Q", content[:8])
    header, body = content[8 : 8 + size], content[8 + size :]
    kind = rng.randrange(4)
    if kind == 0:
        return (
            struct.pack("<Q", rng.choice([0, 1, size - 1, size + 1, 2**32, 2**63, rng.getrandbits(64)]))
            + header
            + body
        )
    text = (
        mutate_bytes(header, rng) if kind == 1 else json.dumps(mutate_json(json.loads(header), rng)).encode()
    )
    return struct.pack("<Q", len(text)) + text + (body if rng.random() < 0.9 else mutate_bytes(body, rng))


def repack(path: Path, name_end: str, change: Callable[[bytes], bytes], out: Path) -> None:
    """A zip archive with one member changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(name_end) else content)


# --- what is fuzzed: each kind prepares once and then tries one mutation


class Plant:
    """Unpickles to a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def _world(folder: Path) -> Path:
    return Path(shutil.copytree(embedded.WORLD, folder / "world"))


def _use_world(path: Path) -> None:
    world = World.load(path)
    starts = world.sample_starts(2, seed=0)
    world.dream(load_policy("random", world.spec), starts, horizon=2, iterations=min(1, world.iterations))


def world_json(folder: Path) -> Callable[[random.Random], None]:
    path = _world(folder)
    document = json.loads((path / "world.json").read_text())

    def one(rng: random.Random) -> None:
        (path / "world.json").write_bytes(mutate_text(document, rng))
        _use_world(path)

    return one


def safetensors_header(folder: Path) -> Callable[[random.Random], None]:
    path = _world(folder)
    content = (path / "world.safetensors").read_bytes()

    def one(rng: random.Random) -> None:
        (path / "world.safetensors").write_bytes(mutate_header(content, rng))
        _use_world(path)

    return one


def baseline_json(folder: Path) -> Callable[[random.Random], None]:
    path, spec = _world(folder), embedded.spec()
    documents = {}
    for name in baselines.BASELINES:
        config = baselines.preset_config(name, "tiny")
        baselines.save(path, name, baselines.build(name, spec, config, 32), {"seed": 0})
        documents[name] = json.loads((path / f"{name}.json").read_text())
    weights = {name: (path / f"{name}.safetensors").read_bytes() for name in documents}

    def one(rng: random.Random) -> None:
        name = rng.choice(list(documents))
        header = rng.random() < 0.3
        text = json.dumps(documents[name]).encode() if header else mutate_text(documents[name], rng)
        (path / f"{name}.json").write_bytes(text)
        (path / f"{name}.safetensors").write_bytes(
            mutate_header(weights[name], rng) if header else weights[name]
        )
        model: Any = baselines.load(path, name, spec)
        if name == "synther":
            model.draw(2, seed=0)
        else:
            model.draw(torch.zeros(2, spec.observation_size), 2, seed=0)

    return one


def _agent(folder: Path) -> Path:
    import gymnasium as gym

    spec = DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (5,)), gym.spaces.Box(-1, 1, (2,), np.float32))
    path = folder / "agent.pt"
    agent_class("td3bc")(spec, seed=0).save(path)
    return path


def agent_checkpoint(folder: Path) -> Callable[[random.Random], None]:
    path = _agent(folder)
    content, damaged = path.read_bytes(), folder / "damaged.pt"
    checkpoint = torch.load(path, weights_only=True)
    plain = {
        key: value for key, value in checkpoint.items() if isinstance(value, (str, int, float, dict, list))
    }
    plain.pop("state", None)
    readable = {key: value for key, value in plain.items() if _is_json(value)}

    def one(rng: random.Random) -> None:
        kind = rng.random()
        if kind < 0.3:
            damaged.write_bytes(mutate_bytes(content, rng))
        elif kind < 0.7:
            repack(path, "data.pkl", lambda old: mutate_bytes(old, rng), damaged)
        else:
            changed = mutate_json(readable, rng)
            kept = {key: value for key, value in checkpoint.items() if key not in readable}
            torch.save({**kept, **changed}, damaged)
        load_policy(damaged).act(torch.zeros(2, 5))

    return one


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
        return True
    except (TypeError, ValueError):
        return False


def minari_metadata(folder: Path) -> Callable[[random.Random], None]:
    world = World.load(embedded.WORLD)
    dreams = world.dream(
        load_policy("random", world.spec), world.sample_starts(4, seed=0), horizon=5, iterations=0
    )
    path = write_dataset(
        folder / "data.minari", Dataset.from_trajectories(world.spec, dreams), provenance={"a": 1}
    )
    document = json.loads((path / "metadata.json").read_text())

    def one(rng: random.Random) -> None:
        told = dict(document)
        if rng.random() < 0.3:  # without spaces the environment is asked
            del told["observation_space"]
        (path / "metadata.json").write_bytes(mutate_text(told, rng))
        load_dataset(path, cache=False)

    return one


def planted(folder: Path) -> Callable[[random.Random], None]:
    """Every way known to us in which a file could have code run; the mark must never appear."""
    mark = folder / "it ran".replace(" ", "-")
    agent, bomb = _agent(folder), pickle.dumps(Plant(mark))
    data = folder / "data.minari"
    world = World.load(embedded.WORLD)
    dreams = world.dream(
        load_policy("random", world.spec), world.sample_starts(2, seed=0), horizon=3, iterations=0
    )
    write_dataset(data, Dataset.from_trajectories(world.spec, dreams))
    document = json.loads((data / "metadata.json").read_text())
    call = {"id": "Planted-v0", "entry_point": "subprocess:call", "max_episode_steps": 5, "reward_threshold": None,
            "nondeterministic": False, "order_enforce": False, "disable_env_checker": True, "additional_wrappers": [],
            "vector_entry_point": None, "kwargs": {"args": ["touch", str(mark)]}}  # fmt: skip
    file = folder / "planted"

    def pack(names: dict[str, bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in names.items():
                archive.writestr(name, content)

    def as_policy_file(rng: random.Random, make: Callable[[], None]) -> None:
        make()
        if rng.random() < 0.5:
            file.write_bytes(mutate_bytes(file.read_bytes(), rng))
        load_policy(file, world.spec)

    ways: list[Callable[[random.Random], Any]] = [
        lambda rng: as_policy_file(rng, lambda: repack(agent, "data.pkl", lambda _: bomb, file)),
        lambda rng: as_policy_file(rng, lambda: file.write_bytes(bomb)),
        lambda rng: as_policy_file(rng, lambda: pack({"data": bomb, "policy.pth": bomb, "_stable_baselines3_version": b"2"})),
        lambda rng: as_policy_file(rng, lambda: pack({"archive_format": b"pt2", "data/constants/0.pt": bomb, "data.pkl": bomb})),
        lambda rng: as_policy_file(rng, lambda: pack({"p/constants.pkl": bomb, "p/data.pkl": bomb, "p/code/a.py": b"", "p/version": b"3"})),
        lambda rng: as_policy_file(rng, lambda: torch.save({"format": "dydiff-env-agent", "x": Plant(mark)}, file)),
        lambda rng: _planted_environment(data, document, call),
        lambda rng: make_env(json.dumps(call)),
    ]  # fmt: skip

    def one(rng: random.Random) -> None:
        try:
            rng.choice(ways)(rng)
        finally:
            if mark.exists():
                raise SystemExit("CODE RAN FROM A FILE")

    return one


def _planted_environment(data: Path, document: dict[str, Any], call: dict[str, Any]) -> None:
    told = {**document, "env_spec": json.dumps(call)}
    del told["observation_space"]
    (data / "metadata.json").write_text(json.dumps(told))
    load_dataset(data, cache=False)


KINDS = {"world_json": (world_json, 2500), "safetensors_header": (safetensors_header, 2000),
         "baseline_json": (baseline_json, 1000), "agent_checkpoint": (agent_checkpoint, 2500),
         "minari_metadata": (minari_metadata, 2000), "planted": (planted, 500)}  # fmt: skip


# --- running


def run_kind(name: str, inputs: int, seed: int, progress: Any = None) -> dict[str, Any]:
    """Try ``inputs`` mutations of one kind; count the outcomes, and keep the first of each unexpected one."""
    counts: collections.Counter[str] = collections.Counter()
    unexpected: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = KINDS[name][0](Path(scratch))

        @hypothesis.seed(seed)
        @hypothesis.settings(max_examples=inputs, deadline=None, database=None, phases=[hypothesis.Phase.generate],
                             suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
        @hypothesis.given(strategies.randoms(use_true_random=False))
        def attempt(rng: random.Random) -> None:
            index = counts.total()
            if progress is not None:
                progress.value = index
            signal.signal(signal.SIGALRM, _too_long)
            signal.alarm(SECONDS)
            try:
                one(rng)
                counts["works"] += 1
            except DyDiffError:
                counts["refused"] += 1
            except (KeyboardInterrupt, StopTest):  # the second: Hypothesis wants no more of this input
                raise
            except BaseException as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                kind = (
                    f"{type(error).__name__}: {str(error)[:100]} ({Path(place.filename).name}:{place.lineno})"
                )
                counts["unexpected"] += 1
                unexpected.setdefault(kind, f"input {index}")
            finally:
                signal.alarm(0)

        attempt()
    return {"inputs": counts.total(), **counts, "first_unexpected": unexpected}


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _child(name: str, inputs: int, seed: int, progress: Any, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    results.put(run_kind(name, inputs, seed, progress))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=10_500, help="in all, shared out over the kinds")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    chosen = options.kinds.split(",")
    whole = sum(KINDS[name][1] for name in chosen)
    context, report = multiprocessing.get_context("spawn"), {}
    for name in chosen:
        inputs = round(options.inputs * KINDS[name][1] / whole)
        progress, results = context.Value("q", 0), context.Queue()
        process = context.Process(target=_child, args=(name, inputs, options.seed, progress, results))
        process.start()
        process.join()
        if process.exitcode == 0:
            report[name] = results.get(timeout=5)
        else:
            report[name] = {
                "inputs": progress.value + 1,
                "unexpected": 1,
                "first_unexpected": {f"the process ended with {process.exitcode}": f"input {progress.value}"},
            }
        print(name, json.dumps(report[name]), flush=True)
    totals = {
        key: sum(int(found.get(key, 0)) for found in report.values())
        for key in ("inputs", "works", "refused", "unexpected")
    }
    document = {
        "command": f"python benchmarks/fuzz_files.py --inputs {options.inputs} --seed {options.seed}",
        "totals": totals,
        "kinds": report,
    }
    print(json.dumps(totals))
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    raise SystemExit(1 if totals["unexpected"] else 0)


if __name__ == "__main__":
    main()
