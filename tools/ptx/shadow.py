# SPDX-License-Identifier: Apache-2.0
"""What is known of the bytes of tensors: whether anybody wrote them, and which program touched them last.

Shadows belong to storages, so that views share them. Everything counts as written until somebody says otherwise:
``mark_unwritten`` for a tensor, ``track_empty`` for all that ``torch.empty`` makes. Only kernels are watched; what
PyTorch writes between launches has to be told with ``mark_written``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

SECTOR = 32


class Shadow:
    """Shadow of one storage; the tags (see machine/check.cpp) are allocated when first needed."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.start, self.size = storage.data_ptr(), storage.nbytes()
        self.written = np.ones(self.size, np.uint8)
        self.tags: npt.NDArray[np.uint64] | None = None  # [writer or reader, byte]
        self.sectors: npt.NDArray[np.uint32] | None = None  # [reader or writer, sector]
        self._reference = StorageWeakRef(storage)

    def belongs_to(self, storage: torch.UntypedStorage) -> bool:
        """Whether this is the shadow of a storage: addresses are used again."""
        return not self._reference.expired() and self.size == storage.nbytes()

    @property
    def expired(self) -> bool:
        """Whether the storage is gone."""
        return bool(self._reference.expired())

    def prepare(self, check: bool, count: bool) -> None:
        """Allocate what a launch needs."""
        if check and self.tags is None:
            self.tags = np.zeros((2, self.size), np.uint64)
        if count and self.sectors is None:
            self.sectors = np.zeros((2, self.size // SECTOR + 2), np.uint32)


_shadows: dict[int, Shadow] = {}


def shadow_of(tensor: Tensor) -> Shadow:
    """The shadow of a tensor's storage."""
    storage = tensor.untyped_storage()
    shadow = _shadows.get(storage.data_ptr())
    if shadow is None or not shadow.belongs_to(storage):
        for address in [address for address, old in _shadows.items() if old.expired]:
            del _shadows[address]
        shadow = _shadows[storage.data_ptr()] = Shadow(storage)
    return shadow


def extent(tensor: Tensor) -> tuple[int, int]:
    """First address of a tensor and the first one behind it."""
    start = tensor.data_ptr()
    if tensor.numel() == 0:
        return start, start
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.element_size()


def _marks(tensor: Tensor) -> npt.NDArray[np.uint8]:
    shadow = shadow_of(tensor)
    first, end = extent(tensor)
    return shadow.written[first - shadow.start : end - shadow.start]


def mark_unwritten(*tensors: Tensor) -> None:
    """From here on nobody has written these tensors: to read them before that is a fault."""
    for tensor in tensors:
        _marks(tensor)[:] = 0


def mark_written(*tensors: Tensor) -> None:
    """These tensors hold values, from PyTorch for instance."""
    for tensor in tensors:
        _marks(tensor)[:] = 1


def unwritten(tensor: Tensor) -> int:
    """How many elements of a contiguous tensor have a byte that nobody has written."""
    if not tensor.is_contiguous():
        raise ValueError("unwritten() takes a contiguous tensor")
    return int((_marks(tensor).reshape(-1, tensor.element_size()) == 0).any(1).sum())


@contextmanager
def track_empty() -> Iterator[None]:
    """Tensors that ``torch.empty``, ``empty_like`` and ``new_empty`` make in here count as unwritten."""

    def tracked(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def empty(*args: Any, **kwargs: Any) -> Tensor:
            tensor = make(*args, **kwargs)
            if tensor.device.type == "cpu" and tensor.numel():
                mark_unwritten(tensor)
            return tensor

        return empty

    with (
        mock.patch.object(torch, "empty", tracked(torch.empty)),
        mock.patch.object(torch, "empty_like", tracked(torch.empty_like)),
        mock.patch.object(Tensor, "new_empty", tracked(Tensor.new_empty)),
    ):
        yield
