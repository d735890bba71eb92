# SPDX-License-Identifier: Apache-2.0
"""Ordinal pairs: two points of an image and which of them is farther, from the lists of DIW or drawn from a map."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class OrdinalPairs(NamedTuple):
    """Pairs of points of one image and which of them is farther.

    Attributes:
        image: path of the image as the list names it.
        size: (height, width) in pixels that the points refer to.
        first, second: points A and B, int64 [n, 2], (row, column) from 0.
        relation: int64 [n]: 1 = A is farther, -1 = B is farther, 0 = equally far.
    """

    image: str
    size: tuple[int, int]
    first: Tensor
    second: Tensor
    relation: Tensor


def read_diw(
    path: str | Path, order: Literal["yx", "xy"] = "yx", first_pixel: Literal[0, 1] = 1
) -> Iterator[OrdinalPairs]:
    """Read a list of "Depth in the Wild": a line with the image's path, then a line with its pair.

    The pair's line is ``y_A,x_A,y_B,x_B,relation,width,height`` with ">" for A farther. Programs in circulation
    disagree on the order of the coordinates, so every point is checked to lie in its image.

    Args:
        path: csv file.
        order: "yx" row first (the data set's own loader) or "xy".
        first_pixel: number of the first row and column.

    Yields:
        One :class:`OrdinalPairs` per image, in the file's order.

    Raises:
        ValueError: a line cannot be read, or a point lies outside its image; the message names the line.
    """
    image, number = None, 0
    with open(path, newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            if image is None:
                if len(row) != 1:
                    raise ValueError(f"{path}, line {number}: expected the path of an image, got {','.join(row)!r}")
                image = row[0].strip()
                continue
            try:
                *coordinates, sign, width, height = (field.strip() for field in row)
                a1, a2, b1, b2 = (int(float(c)) - first_pixel for c in coordinates)
                relation = {">": 1, "<": -1, "=": 0}[sign]
                size = int(float(height)), int(float(width))
            except (ValueError, KeyError) as error:
                raise ValueError(
                    f"{path}, line {number}: expected y_A,x_A,y_B,x_B,relation,width,height, got {','.join(row)!r}"
                ) from error
            points = torch.tensor([[a1, a2], [b1, b2]])
            points = points if order == "yx" else points.flip(1)
            if (points < 0).any() or (points >= torch.tensor(size)).any():
                raise ValueError(
                    f"{path}, line {number}: a point lies outside the image of {size[1]} x {size[0]} pixels, read as "
                    f"order={order!r}, first_pixel={first_pixel}: try the other order"
                )
            yield OrdinalPairs(image, size, points[:1], points[1:], torch.tensor([relation]))
            image = None
    if image is not None:
        raise ValueError(f"{path}, line {number}: the list ends after the path of {image}, without its pair")


def sample_pairs(mask: Tensor, pairs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw pairs of two different valid pixels.

    Args:
        mask: [H, W], True where a pixel may be drawn.
        pairs: how many, with replacement.
        seed: the draw is the same for a seed on every machine.

    Returns:
        Flat indices of the first and the second pixel, int64 [pairs] each (empty with fewer than two valid pixels).
    """
    valid = mask.flatten().nonzero()[:, 0].cpu()
    if len(valid) < 2:
        return valid[:0], valid[:0]
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(valid), (pairs,), generator=generator)
    # a step of 1 to n - 1 round the list never returns to its start
    step = torch.randint(1, len(valid), (pairs,), generator=generator)
    return valid[first], valid[(first + step) % len(valid)]


def label_pairs(
    order: Tensor, mask: Tensor, pairs: int, margin: float = 0.0, seed: int = 0, image: str = ""
) -> OrdinalPairs:
    """Draw pairs of pixels of a map and label them by its order.

    A is farther (1) where ``order_A - order_B > margin``, B (-1) where it is below ``-margin``, else they are equal
    (0). With ``order = log depth`` and ``margin = log(1 + tolerance)`` this is the ratio test of Xian et al. (2018): 1
    where ``g_A / g_B > 1 + tolerance``.

    Args:
        order: [H, W], grows with depth.
        mask: [H, W], True where a pixel may be drawn.
        pairs: how many; none with fewer than two such pixels.
        margin: half-width of the band of equal pairs, in the unit of ``order``.
        seed: of the draw.
        image: its name.
    """
    height, width = order.shape
    a, b = sample_pairs(mask, pairs, seed)
    values = order.flatten().cpu()
    difference = values[a] - values[b]
    relation = (difference > margin).long() - (difference < -margin).long()
    first, second = (torch.stack([index // width, index % width], 1) for index in (a, b))
    return OrdinalPairs(image, (height, width), first, second, relation)
