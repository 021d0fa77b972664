"""Batches mixed from logged and synthetic transitions in an exact ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from minari import MinariDataset
from torch import Tensor

from dydiff_env.data.dataset import Dataset
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError

Source: TypeAlias = Dataset | MinariDataset | Trajectories | str | Path
BLOCK = 64  # batches drawn and gathered at once


class Batch(NamedTuple):
    """K batches of B transitions each, in environment units; an index takes one of the K."""

    observations: Tensor  # (K, B, O)
    actions: Tensor  # (K, B, A)
    rewards: Tensor  # (K, B)
    next_observations: Tensor  # (K, B, O)
    terminated: Tensor  # (K, B): 1 where the episode ended for good, 0 at a time-out, whose value bootstraps

    def pick(self, index: int) -> Batch:
        """One batch of the K."""
        return Batch(*(part[index] for part in self))


def check_ratio(real_ratio: float) -> None:
    """Raise DyDiffError for a share outside [0, 1]."""
    if not 0 <= real_ratio <= 1:
        raise DyDiffError(f"The real ratio is {real_ratio}.", "Give a share between 0 and 1.", usage=True)


class Replay:
    """Transitions of any number of sources, held in memory, drawn uniformly within each source.

    Args:
        real: logged data: one source or several, whatever :func:`~dydiff_env.data.minari_io.load_dataset` takes.
        synthetic: generated data, alike: none, one source or several.
        real_ratio: share α of logged rows in each batch (Table 4). The first n batches have ⌊α B n⌋ of them
            in all, so that a batch of 256 at .6 has 153 or 154. Without synthetic data it is 1.
        real_weights: how often each logged source is drawn, relative to the others; by its size when None.
        synthetic_weights: the same for the synthetic sources.
        device: where the transitions are kept.

    Raises:
        DyDiffError: for a ratio outside [0, 1], sources of different widths, or weights that do not fit.
    """

    def __init__(
        self,
        real: Source | Sequence[Source],
        synthetic: Source | Sequence[Source] = (),
        *,
        real_ratio: float = 0.6,
        real_weights: Sequence[float] | None = None,
        synthetic_weights: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_ratio(real_ratio)
        logged, generated = ([group] if isinstance(group, Source) else list(group) for group in (real, synthetic))
        if not logged:
            raise DyDiffError("A replay needs logged data.", "Give at least one dataset.", usage=True)
        self.real_ratio = real_ratio if generated else 1.0
        sources = [source if isinstance(source, Trajectories) else load_dataset(source) for source in (*logged, *generated)]
        tables = [_rows(source) for source in sources]
        self.observation_size, self.action_size = _widths(sources[0])
        for source in sources:
            if _widths(source) != (self.observation_size, self.action_size):
                raise DyDiffError(
                    f"Sources differ: (O, A) = {_widths(source)} beside "
                    f"{(self.observation_size, self.action_size)}.",
                    "Mix only data of one environment.",
                    usage=True,
                )
        self._sizes = torch.tensor([len(table) for table in tables])
        self._starts = self._sizes.cumsum(0) - self._sizes
        self._real = _cumulative(self._sizes[: len(logged)], real_weights)
        self._synthetic = _cumulative(self._sizes[len(logged) :], synthetic_weights) if generated else None
        self.real_rows = int(self._sizes[: len(logged)].sum())
        self._table = torch.cat(tables).to(device) if len(tables) > 1 else tables[0].to(device)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def real_observations(self) -> Tensor:
        """(T, O) observations of all logged transitions."""
        return self._table[: self.real_rows, : self.observation_size]

    def batches(
        self, updates: int, batch_size: int = 256, *, start: int = 0, seed: int = 0, group: int = 1
    ) -> Iterator[Batch]:
        """Draw batches for the updates ``start`` … ``start + updates − 1`` of a run.

        What update n sees depends on ``seed`` and n alone: a resumed run sees what it would have seen.

        Args:
            updates: how many batches in all.
            batch_size: B.
            start: number of the first one.
            seed: of the draws.
            group: how many batches are handed out together, aligned to multiples of ``group``.

        Yields:
            Batches (K, B, …), K ≤ ``group``.
        """
        update, end, block = start, start + updates, BLOCK * group
        while update < end:
            first = update - update % block
            rows = self._draw(first, block, batch_size, seed)  # (block, B, columns)
            while update < min(end, first + block):
                stop = min(end, update - update % group + group)
                yield self._split(rows[update - first : stop - first])
                update = stop

    def real_counts(self, first: int, batches: int, batch_size: int) -> Tensor:
        """(batches,) logged rows in each of the batches ``first`` …: ⌊α B (n+1)⌋ − ⌊α B n⌋."""
        total = torch.arange(first, first + batches + 1, dtype=torch.float64) * (self.real_ratio * batch_size)
        return (total + 1e-6).floor().diff().long()  # the margin absorbs rounding of α

    def _draw(self, first: int, batches: int, batch_size: int, seed: int) -> Tensor:
        state = int(np.random.SeedSequence((seed, first)).generate_state(1, np.uint64)[0]) >> 1
        generator = torch.Generator().manual_seed(int(state))
        which, place = torch.rand(2, batches, batch_size, dtype=torch.float64, generator=generator)
        source = torch.searchsorted(self._real, which, right=True)
        if self._synthetic is not None:
            drawn = len(self._real) + torch.searchsorted(self._synthetic, which, right=True)
            real = torch.arange(batch_size) < self.real_counts(first, batches, batch_size)[:, None]
            source = torch.where(real, source, drawn)
        rows = self._starts[source] + (place * self._sizes[source]).long()
        return self._table[rows.to(self._table.device)]

    def _split(self, rows: Tensor) -> Batch:
        observations, actions, rewards, following, terminated = rows.split(
            [self.observation_size, self.action_size, 1, self.observation_size, 1], -1
        )
        return Batch(observations, actions, rewards.squeeze(-1), following, terminated.squeeze(-1))


def _cumulative(sizes: Tensor, weights: Sequence[float] | None) -> Tensor:
    """Upper ends of each source's share of [0, 1)."""
    share = sizes.double() if weights is None else torch.tensor(weights, dtype=torch.float64)
    if share.shape != sizes.shape or bool((share < 0).any()) or float(share.sum()) <= 0:
        raise DyDiffError(
            f"Weights {weights} do not fit {len(sizes)} sources.",
            "Give one non-negative weight a source, not all zero.",
            usage=True,
        )
    ends = share.cumsum(0) / share.sum()
    ends[int(share.nonzero().max()) :] = 1.0  # exactly, so that no draw falls behind the last source
    return ends


def _widths(source: Dataset | Trajectories) -> tuple[int, int]:
    return source.observations.shape[-1], source.actions.shape[-1]


def _rows(source: Dataset | Trajectories) -> Tensor:
    """One row (s, a, r, s', terminated) a transition: a batch is then one gather."""
    if isinstance(source, Dataset):
        flat = source.flat()
        columns = [
            flat.observations,
            flat.actions,
            flat.rewards[:, None],
            flat.next_observations,
            flat.terminated[:, None],
        ]
    else:
        mask = source.mask
        last = np.arange(source.horizon) == source.lengths[:, None] - 1
        columns = [
            source.observations[:, :-1][mask],
            source.actions[mask],
            source.rewards[mask][:, None],
            source.observations[:, 1:][mask],
            (last & source.terminations[:, None])[mask][:, None],
        ]
    table = torch.from_numpy(np.concatenate(columns, 1, dtype=np.float32))
    if not len(table):
        raise DyDiffError("A data source has no transitions.", "Give data with at least one step.")
    return table
