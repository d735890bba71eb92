# SPDX-License-Identifier: Apache-2.0
"""Several data sets in one training: which frames an epoch has, and batches that mix them.

Everything follows from (seed, epoch): a resumed run is the same as an uninterrupted one, for any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader, Dataset

from mlr.data.datamodule import DepthData, EpochSampler, Transformed, make_loader
from mlr.data.depth_files import DataError
from mlr.data.named_sets import NamedSet

if TYPE_CHECKING:
    from mlr.training.settings import TrainingSettings


class Mixed(Dataset):
    """Data sets one after the other; a sample also has "set", the number of its set, and "mask", what its losses see.

    Args:
        parts: the sets.
        masked: for each, whether its losses leave pixels without depth out. Others see every pixel.
    """

    def __init__(self, parts: Sequence[Transformed], masked: Sequence[bool]) -> None:
        self.parts, self.masked = parts, masked
        self.starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        turn, index = key
        number = next(n for n, (start, end) in enumerate(pairwise(self.starts)) if start <= index < end)
        sample = self.parts[number][turn, index - self.starts[number]]
        valid = sample["valid"]
        return {**sample, "set": number, "mask": valid if self.masked[number] else torch.ones_like(valid)}


class MixtureSampler(EpochSampler):
    """Keys (turn, index) of an epoch of several sets, in an order drawn from (seed, epoch).

    An epoch has as many frames as the sets together. Each set has its share of them, by its weight. A set goes through
    its frames in an order drawn from (seed, set, turn), turn after turn, from epoch to epoch: each of its frames comes
    once a turn, however small or large its share. The turn stands for the epoch in what augmentation draws, so that a
    frame that comes twice in an epoch looks different.

    Args:
        lengths: frames of the sets.
        weights: shares of the sets, of any sum; None = by their frames, each of which then comes once an epoch.
        seed: of the orders.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float] | None, seed: int) -> None:
        super().__init__(sum(lengths), shuffle=True, seed=seed)
        self.lengths = list(lengths)
        self.counts = shares(self.length, lengths if weights is None else weights)

    def keys(self) -> list[tuple[int, int]]:
        """The epoch's keys."""
        keys, start = [], 0
        for number, (length, count) in enumerate(zip(self.lengths, self.counts, strict=True)):
            places = range(self.epoch * count, (self.epoch + 1) * count)
            orders = {turn: _drawn(length, (self.seed, number, turn)) for turn in {place // length for place in places}}
            keys += [(place // length, start + orders[place // length][place % length]) for place in places]
            start += length
        return [keys[i] for i in _drawn(len(keys), (self.seed, self.epoch))]


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the weights, 1 at least, whose sum is ``total``, by the largest remainders.

    Example:
        >>> shares(10, [2, 1]), shares(10, [1, 1000])
        ([7, 3], [1, 9])
    """
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [max(1, int(share)) for share in exact]
    by_remainder = sorted(range(len(counts)), key=lambda i: counts[i] - exact[i])
    for i in range(max(0, total - sum(counts))):
        counts[by_remainder[i % len(counts)]] += 1
    while sum(counts) > total and max(counts) > 1:
        counts[counts.index(max(counts))] -= 1
    return counts


def _drawn(length: int, seed: tuple[int, ...]) -> list[int]:
    generator = torch.Generator().manual_seed(hash(seed) & 0xFFFF_FFFF)  # the hash of integers is fixed
    return torch.randperm(length, generator=generator).tolist()


class MixedData(L.LightningDataModule):
    """Training and validation batches of several data sets, as of :class:`mlr.data.DepthData`.

    A batch also has "set" [B], the numbers of the images' sets, and "mask" [B, 1, H, W], the losses' mask.

    Args:
        sets: what is particular to each set.
        config: what they share.
    """

    def __init__(self, sets: Sequence[NamedSet], config: TrainingSettings) -> None:
        super().__init__()
        self.sets, self.seed, self.batch_size = sets, config.seed, config.batch_size
        self.parts = {entry.name: _part(entry, config) for entry in sets}
        self.workers = next(iter(self.parts.values())).workers

    @property
    def where(self) -> str:
        """The sets as they are named to other commands."""
        return ", ".join(part.where for part in self.parts.values())

    @property
    def masked(self) -> bool:
        """Whether the losses take "mask" as their mask."""
        return any(part.masked for part in self.parts.values())

    def setup(self, stage: str) -> None:
        """Open the sets and look at their first frames.

        Raises:
            DataError: naming the set.
        """
        for name, part in self.parts.items():
            try:
                part.setup(stage)
            except (ValueError, OSError) as error:
                raise DataError(f"--data, set {name}: {error}") from error

    def teardown(self, stage: str) -> None:
        """Say at the end what was left out."""
        for part in self.parts.values():
            part.teardown(stage)

    def require_devices(self, devices: int) -> None:
        """Refuse more devices than frames.

        Raises:
            ValueError: with the numbers.
        """
        for split in ("train", "val"):
            if (frames := sum(self._lengths(split))) < devices:
                raise ValueError(f"--devices {devices}: there are only {frames} frames in {split}")

    def describe(self) -> str:
        """A line for people on each set."""
        counts = self._sampler().counts
        return "\n".join(
            f"{name}: {count} frames an epoch of {part.describe()}"
            for (name, part), count in zip(self.parts.items(), counts, strict=True)
        )

    def _lengths(self, split: str) -> list[int]:
        return [len(part.datasets[split]) for part in self.parts.values()]

    def _sampler(self) -> MixtureSampler:
        weights = [entry.weight for entry in self.sets if entry.weight is not None]
        return MixtureSampler(self._lengths("train"), weights or None, self.seed)

    def _loader(self, split: str, sampler: EpochSampler) -> DataLoader:
        parts: Iterable[DepthData] = self.parts.values()
        mixed = Mixed([part.serve(split) for part in parts], [part.masked for part in parts])
        return make_loader(mixed, sampler, self.batch_size, self.workers, self.trainer)

    def train_dataloader(self) -> DataLoader:
        """Augmented batches that mix the sets at random."""
        return self._loader("train", self._sampler())

    def val_dataloader(self) -> DataLoader:
        """Batches in order, set after set."""
        return self._loader("val", EpochSampler(sum(self._lengths("val")), False, self.seed))


def _part(entry: NamedSet, config: TrainingSettings) -> DepthData:
    return DepthData(
        data=entry.data,
        root=entry.root,
        size=config.height_width,
        batch_size=config.batch_size,
        workers=config.workers,
        seed=config.seed,
        augment=config.augment,
        holes=entry.holes or config.holes,
        depth_unit=entry.depth_unit,
        train_length=config.train_length,
        val_length=config.val_length,
        options=entry.data_options,
        crop=entry.crop_size(),
    )


def is_sparse(part: DepthData) -> bool:
    """Whether a mask leaves so little depth that filters of 4 x 4 pixels find next to none."""
    return part.masked and part.known_share() < 0.5


def training_data(config: TrainingSettings) -> DepthData | MixedData:
    """The data that the settings of a run name: one set, or several."""
    sets = config.sets
    return MixedData(sets, config) if sets else DepthData.from_config(config)
