"""Updates a second of a small network whose threads spin, sleep, or spin briefly while they wait, with and without a busy neighbour.

    python benchmarks/waiting_threads.py [--seconds 5] [--out benchmarks/results/waiting_threads.json]

Each case is a process of its own, since OpenMP reads its variables when torch is loaded. The neighbour is the same program.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

CODE = """
import sys, time, torch
from torch import nn
net = nn.Sequential(nn.Linear(20, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 20))
optimizer, x, seconds = torch.optim.Adam(net.parameters()), torch.randn(256, 20), float(sys.argv[1])
begun = updates = 0
while not begun or time.perf_counter() - begun < seconds:
    optimizer.zero_grad(); net(x).square().mean().backward(); optimizer.step()
    begun, updates = begun or time.perf_counter(), updates + 1
print(updates / seconds)
"""


def start(seconds: float, **environment: str) -> subprocess.Popen[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", CODE, str(seconds)]
    return subprocess.Popen(command, env=clean | environment, stdout=subprocess.PIPE, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cases = {"spinning": {}, "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}, "1000 turns": {"GOMP_SPINCOUNT": "1000"},
             "one thread": {"OMP_NUM_THREADS": "1"}}  # fmt: skip
    neighbours: dict[str, dict[str, str] | None] = {"alone": None, "beside one thread": cases["one thread"],
                                                    "beside spinning threads": cases["spinning"]}  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    for place, other in neighbours.items():
        for name, environment in cases.items():
            neighbour = None if other is None else start(3 * options.seconds + 10, **other)
            rate = float(start(options.seconds, **environment).communicate()[0])
            if neighbour is not None:
                neighbour.kill()
                neighbour.wait()
            found.setdefault(place, {})[name] = round(rate)
            print(f"{place:24s} {name:12s} {rate:6.0f} updates/s", flush=True)
    if options.out:
        command = f"python benchmarks/waiting_threads.py --seconds {options.seconds:g}"
        document = {"command": command, "cores": os.cpu_count(), "load_average": os.getloadavg()[0], "updates_per_second": found}
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
