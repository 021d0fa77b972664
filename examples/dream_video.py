"""A dream and reality side by side, from one start and under the same actions, as a GIF.

    python examples/dream_video.py dream.gif                       # the embedded maze and its policy
    python examples/dream_video.py dream.gif --world world/ --policy ckpt.pt

Left, framed in purple, the dream; right the simulator. Needs Pillow: pip install 'dydiff-env[video]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from dydiff_env import load_policy
from dydiff_env.envs.rendering import make_renderer, overlay
from dydiff_env.envs.worlds import find_world
from dydiff_env.evaluation.simulator import Simulator

FPS = 20


def main(
    out: str, world: str | None = None, policy: str = "demo", steps: int = 100, seed: int = 0, width: int = 260
) -> Path:
    dreamt_in = find_world(world, policy=policy)
    starts = dreamt_in.sample_starts(1, seed=seed, kind="initial")
    dream = dreamt_in.dream(load_policy(policy, dreamt_in.spec), starts, steps, seed=seed)
    simulator = Simulator(dreamt_in.spec)
    real = simulator.run(lambda t, _: dream.actions[:, t], starts, steps)
    simulator.close()
    left, right = make_renderer(dreamt_in), make_renderer(dreamt_in)
    left.begin(starts[0]), right.begin(starts[0])
    ends = int(dream.lengths[0]), int(real.lengths[0])  # after its end a side stands still
    frames = []
    for t in range(max(ends) + 1):
        if 0 < t <= ends[0]:
            left.advance(dream.observations[0, t])
        if 0 < t <= ends[1]:
            right.advance(real.observations[0, t])
        if t % 2 == 0:
            uncertainty = float(dream.uncertainties[0, max(min(t, ends[0]) - 1, 0)])
            pair = [overlay(left.frame(), uncertainty), overlay(right.frame(), None)]
            image = Image.fromarray(np.concatenate(pair, 1))
            size = (2 * width, round(image.height * 2 * width / image.width))
            frames.append(image.resize(size, Image.Resampling.LANCZOS).quantize(64))
    left.close(), right.close()
    frames[0].save(
        out, save_all=True, append_images=frames[1:], duration=2000 // FPS, loop=0, optimize=True
    )
    print(f"{out}: {len(frames)} frames, {Path(out).stat().st_size / 1e3:.0f} kB")
    return Path(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--world")
    parser.add_argument("--policy", default="demo")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
