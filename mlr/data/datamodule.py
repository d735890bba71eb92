# SPDX-License-Identifier: Apache-2.0
"""Data for training: a data set by name, its transforms, its loaders.

Every sample's augmentation is drawn from (seed, epoch, index), so a run is the same for any number of workers, and a
resumed run the same as an uninterrupted one.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.registry import check_dataset, check_root, dataset_options, open_dataset, parse_options
from mlr.data.depth_files import DataError, units_per_metre
from mlr.data.fill import HOLES, fill_sample
from mlr.data.pairs import WithPairs
from mlr.data.sample import Sample
from mlr.data.transforms import POLICIES, Crop, finish, resize_only
from mlr.utils import renamed
from mlr.utils.counted import counted
from mlr.utils.cpus import available_cpus

if TYPE_CHECKING:
    from mlr.training.settings import TrainingSettings

#: After this many unusable frames in a row the data set itself is taken to be broken.
BROKEN_IN_A_ROW = 20


class Transformed(Dataset):
    """A data set, filled or masked, under a transform whose random numbers follow from (seed, epoch, index).

    Args:
        dataset: the frames.
        transform: from sample to sample.
        seed: of the random numbers.
        holes: one of :data:`mlr.data.fill.HOLES`.
        stand_in: whether the next frame stands in for one without any known depth (training). Otherwise the frame
            comes as it is, without a valid pixel, and metrics leave it out (validation).

    Attributes:
        without_depth: [frames] bool, the frames seen so far that have no known depth. It lies in shared memory, so
            that loader processes and the main process count together.
    """

    def __init__(
        self, dataset: DepthDataset, transform: Any, seed: int, holes: str = "error", stand_in: bool = True
    ) -> None:
        self.dataset, self.transform, self.seed, self.holes, self.stand_in = dataset, transform, seed, holes, stand_in
        self.without_depth = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()

    def filled(self, index: int) -> Sample:
        """A frame without holes, or, where they are masked, with its own.

        The next frame stands in for one that cannot be used: for a broken one where broken files are known to be in
        the published set (a warning names it), and, where holes are masked, for one without any known depth (counted).
        """
        masked = self.holes == "mask"
        for place in range(index, index + BROKEN_IN_A_ROW):
            place %= len(self.dataset)
            try:
                sample = self.dataset[place]
                known = "points" in sample or bool(sample["valid"].any())
                if not known and not masked and self.dataset.tolerant:
                    raise DataError(f"{sample['id']}: no pixel has a depth")
            except DataError as error:
                if not self.dataset.tolerant:
                    raise
                warnings.warn(f"the next frame stands in for a broken one: {error}", stacklevel=2)
                continue
            if not masked:
                return fill_sample(sample, self.holes)
            if not known:
                self._count(place, sample["id"])
            if known or not self.stand_in:
                return sample
        raise DataError(
            f"{self.dataset!r}: {BROKEN_IN_A_ROW} frames in a row are broken or without depth; see mlr check-data"
        )

    def _count(self, index: int, name: str) -> None:
        if not self.without_depth.any():
            warnings.warn(f"{name}: no pixel has a known depth; such frames are left out and counted", stacklevel=3)
        self.without_depth[index] = True

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        # EpochSampler gives the epoch with the index: the augmentation is a function of both
        epoch, index = key
        sample = self.filled(index)
        with torch.random.fork_rng(devices=[]):
            # the hash of integers is fixed; torch.manual_seed seeds other devices too, which takes half a millisecond
            torch.default_generator.manual_seed(hash((self.seed, epoch, index)) & 0xFFFF_FFFF)
            return finish(self.transform(sample), self.holes == "mask" and not self.dataset.dense)


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of an epoch, in an order drawn from (seed, epoch), shared out over the ranks.

    Args:
        length: number of frames.
        shuffle: whether to draw an order.
        seed: of the order.
    """

    def __init__(self, length: int, shuffle: bool, seed: int) -> None:
        self.length, self.shuffle, self.seed, self.epoch = length, shuffle, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        rank, ranks = _rank()
        if self.shuffle:
            return -(-self.length // ranks)  # every rank takes the same number of steps
        return len(range(rank, self.length, ranks))

    def keys(self) -> list[tuple[int, int]]:
        """The epoch's keys, of all ranks."""
        order = list(range(self.length))
        if self.shuffle:
            generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) & 0xFFFF_FFFF)
            order = torch.randperm(self.length, generator=generator).tolist()
        return [(self.epoch, index) for index in order]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, ranks = _rank()
        keys = self.keys()
        if self.shuffle:
            keys = list(islice(cycle(keys), len(self) * ranks))
        return iter(keys[rank::ranks])


def _rank() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def make_loader(
    dataset: Dataset, sampler: EpochSampler, batch_size: int, workers: int, trainer: L.Trainer | None
) -> DataLoader:
    """Batches of a data set whose keys come from a sampler."""
    if trainer is not None:  # workers load first batches before the trainer names the epoch
        sampler.set_epoch(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


class DepthData(L.LightningDataModule):
    """Training and validation batches of a data set.

    With ``pairs`` it also holds "pairs" [B, P, 3] and relative depth, see :class:`mlr.data.pairs.WithPairs`.

    A batch is a dictionary: "image" [B, 3, H, W] float32 in [0, 1] (the network normalises), "depth" [B, 1, H, W]
    float32 metres, "valid" [B, 1, H, W] bool (True where the depth was measured; False for pixels that a rotation
    uncovers), "id" list of names. With ``holes="mask"`` the depth is 0 where it is unknown.

    Args:
        data: a key of :data:`mlr.data.datasets.registry.DATASETS`.
        root: folder or file of the data set; "rooms" takes none.
        size: (height, width) of the batches.
        batch_size: images in a batch.
        workers: processes that load; -1 = one less than the CPUs that affinity and quota allow, at most 8.
        seed: of the order and the augmentation.
        augment: a key of :data:`mlr.data.transforms.POLICIES`.
        holes: one of :data:`mlr.data.fill.HOLES`.
        depth_unit: unit of integer depth files of "folder".
        train_length: scenes in an epoch of "rooms".
        val_length: scenes to validate on of "rooms".
        options: of the reader, e.g. "kb_crop=true,list_file=mine.txt"; see docs/data.md.
        max_depth: deepest median depth of a frame that is believed, metres; None = the reader's 100.
        pairs: pairs of points that are drawn in every image, for relative depth; 0 = depth in metres, without pairs.
        pair_tolerance: pairs whose depths differ by at most this share are equal.
        crop: (height, width) to cut out of frames before they are resized: in training anywhere, in validation from
            the middle; None = nothing is cut off.

    Raises:
        ValueError, DataError: from :meth:`setup`, naming the flag or the file.
    """

    def __init__(
        self,
        data: str = "rooms",
        root: str | Path | None = None,
        size: tuple[int, int] = (288, 384),
        batch_size: int = 8,
        workers: int = -1,
        seed: int = 0,
        augment: str = "paper",
        holes: str = "mask",
        depth_unit: str | None = None,
        train_length: int = 800,
        val_length: int = 100,
        options: str = "",
        max_depth: float | None = None,
        pairs: int = 0,
        pair_tolerance: float = 0.03,
        crop: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.data, self.root, self.size, self.batch_size, self.seed = data, root, size, batch_size, seed
        self.augment = renamed.AUGMENTATIONS.get(augment, augment)
        self.holes, self.depth_unit, self.options, self.max_depth = holes, depth_unit, options, max_depth
        self.pairs, self.pair_tolerance, self.crop = pairs, pair_tolerance, crop
        self.lengths = {"train": train_length, "val": val_length}
        self.workers = min(max(available_cpus() - 1, 1), 8) if workers < 0 else workers
        self.datasets: dict[str, DepthDataset] = {}
        self.served: dict[str, Transformed] = {}

    @classmethod
    def from_config(cls, config: TrainingSettings) -> DepthData:
        """The data that the settings of a run name."""
        same = set(inspect.signature(cls).parameters) - {"size", "options", "pairs"}
        given = {name: getattr(config, name) for name in same if hasattr(config, name)}
        pairs = config.pairs if config.task == "relative" else 0
        return cls(size=config.height_width, options=config.data_options, pairs=pairs, **given)

    def setup(self, stage: str) -> None:
        """Open the data set and look at its first frames, so that what is wrong with it shows before training."""
        if self.datasets:
            return
        for name, value, known in (("augment", self.augment, POLICIES), ("holes", self.holes, HOLES)):
            if value not in known:
                raise ValueError(f"--{name} must be one of {', '.join(known)}, got {value!r}")
        if self.depth_unit is not None:
            units_per_metre(self.depth_unit)
        datasets = {split: self.open(split) for split in ("train", "val")}
        for dataset in datasets.values():
            first = Transformed(dataset, None, self.seed, self.holes).filled(0)
            if self.crop is not None:
                Crop(self.crop)(first)
            if dataset.note():
                warnings.warn(f"{dataset!r}: {dataset.note()}", stacklevel=2)
        train, val = datasets["train"], datasets["val"]
        if len(train) == len(val) == 1 and self.data != "rooms" and train.name(0) == val.name(0):
            warnings.warn(
                f"{train!r}: a single frame is for training and for validation, so the scores say nothing about others",
                stacklevel=2,
            )
        self.datasets = datasets

    @property
    def parts(self) -> dict[str, DepthData]:
        """The data sets of the training by name: this one, without a name."""
        return {"": self}

    @property
    def where(self) -> str:
        """The data set as it is named to other commands."""
        return self.data if self.root is None else f"{self.data}:{self.root}"

    @property
    def masked(self) -> bool:
        """Whether the losses take "valid" as their mask: not where every pixel is known by construction.

        What a rotation uncovers of such frames is filled and counts in the losses.
        """
        return self.holes == "mask" and not self.datasets["train"].dense

    def known_share(self, frames: int = 8) -> float:
        """Share of the pixels with known depth in a few training frames, evenly spread."""
        dataset = Transformed(self.datasets["train"], None, self.seed, "mask")
        count = min(frames, len(dataset))
        with warnings.catch_warnings():  # training says it again when the frames' turn comes
            warnings.simplefilter("ignore")
            shares = [dataset.filled(i * len(dataset) // count)["valid"].float().mean() for i in range(count)]
        return float(torch.stack(shares).mean())

    def left_out(self) -> str:
        """One line about the frames without any known depth that were left out so far; empty if there were none."""
        parts = []
        for split, served in self.served.items():
            indices = served.without_depth.nonzero().flatten().tolist()
            if indices:
                few = ", ".join(served.dataset.name(i) for i in indices[:3]) + (", ..." if len(indices) > 3 else "")
                parts.append(f"{len(indices)} of {counted(len(served), 'frame')} in {split} ({few})")
        return f"no pixel has a known depth, left out: {'; '.join(parts)}" if parts else ""

    def teardown(self, stage: str) -> None:
        """Say at the end what was left out."""
        if stage == "fit" and self.left_out():
            warnings.warn(self.left_out(), stacklevel=1)  # not Lightning's, whose warnings are not shown

    def require_devices(self, devices: int) -> None:
        """Refuse more devices than frames, of which each must have one.

        Raises:
            ValueError: with the numbers.
        """
        for split, dataset in self.datasets.items():
            if len(dataset) < devices:
                raise ValueError(f"--devices {devices}: {split} has only {counted(len(dataset), 'frame')}")

    def open(self, split: str) -> DepthDataset:
        """The frames of a split, at their own size and without transforms."""
        options: dict[str, Any] = dict(parse_options(self.options))
        if self.depth_unit is not None:
            if "unit" not in dataset_options(self.data):
                raise ValueError(f"--depth-unit is not for --data {self.data}, whose unit is known")
            options["unit"] = self.depth_unit
        if self.max_depth is not None:
            options["max_depth"] = self.max_depth
        if check_dataset(self.data) == "rooms":
            check_root(self.data, self.root)
            height, width = self.size
            options = {"length": self.lengths[split], "seed": self.seed, "height": height, "width": width} | options
        return open_dataset(self.data, self.root, split, **options)

    def describe(self) -> str:
        """One line for people."""
        train, val, (height, width) = self.datasets["train"], self.datasets["val"], self.size
        return f"{train!r}; {len(val)} to validate; {height} x {width}, {self.augment}"

    def serve(self, split: str) -> Transformed:
        """The frames of a split as batches hold them: augmented for training, otherwise resized only."""
        training = split == "train"
        transform: Any = POLICIES[self.augment](self.size) if training else resize_only(self.size)
        if self.crop is not None:
            transform = v2.Compose([Crop(self.crop, anywhere=training), transform])
        if self.pairs:  # the same ones in every validation
            transform = WithPairs(transform, self.pairs, self.pair_tolerance, None if training else 0)
        served = Transformed(self.datasets[split], transform, self.seed, self.holes, stand_in=training)
        self.served[split] = served
        return served

    def _loader(self, split: str) -> DataLoader:
        sampler = EpochSampler(len(self.datasets[split]), split == "train", self.seed)
        return make_loader(self.serve(split), sampler, self.batch_size, self.workers, self.trainer)

    def train_dataloader(self) -> DataLoader:
        """Augmented batches in random order."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader:
        """Batches in order, resized only."""
        return self._loader("val")
