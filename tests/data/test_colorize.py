# SPDX-License-Identifier: Apache-2.0
"""Filling depth along the image: against a plain dense implementation, and by its properties."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.data.colorize import colorize, to_grey


def dense(grey: np.ndarray, depth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The equations as the toolbox states them, pixel by pixel, solved with the known pixels pinned."""
    height, width = grey.shape
    matrix, right = np.eye(height * width), np.where(known, depth, 0).astype(np.float64).ravel()
    for i in range(height):
        for j in range(width):
            if known[i, j]:
                continue
            around = [
                (r, c)
                for r in range(max(i - 1, 0), min(i + 2, height))
                for c in range(max(j - 1, 0), min(j + 2, width))
                if (r, c) != (i, j)
            ]
            values = np.array([grey[p] for p in around])
            sigma = 0.6 * np.var(np.append(values, grey[i, j]))
            sigma = max(sigma, -np.min((values - grey[i, j]) ** 2) / np.log(0.01), 2e-6)
            weights = np.exp(-((values - grey[i, j]) ** 2) / sigma)
            for (r, c), weight in zip(around, weights / weights.sum(), strict=True):
                matrix[i * width + j, r * width + c] = -weight
    return np.linalg.solve(matrix, right).reshape(height, width)


@st.composite
def frames(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = draw(st.integers(1, 9)), draw(st.integers(2, 11))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 5, 256]))  # few levels: flat regions and hard edges
    image = (random.integers(0, levels, (height, width, 3)) * (255 // max(levels - 1, 1))).astype(np.uint8)
    depth = random.uniform(0.5, 10, (height, width))
    known = random.random((height, width)) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    known[random.integers(height), random.integers(width)] = True
    return image, depth, known


@settings(max_examples=60, deadline=None)
@given(frames())
def test_it_solves_the_equations(frame: tuple) -> None:
    image, depth, known = frame
    filled = colorize(image, np.where(known, depth, 0))
    np.testing.assert_allclose(filled, dense(to_grey(image), depth, known), rtol=1e-7)
    np.testing.assert_array_equal(filled[known], depth[known])


@settings(max_examples=60, deadline=None)
@given(frames(), st.sampled_from([0.0, -3.0, np.nan, np.inf]))
def test_the_result_stays_within_the_known_depth(frame: tuple, missing: float) -> None:
    image, depth, known = frame
    depth = np.where(known, depth, missing).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filled = colorize(image, depth)
    assert filled.dtype == np.float32
    assert filled.min() >= depth[known].min()
    assert filled.max() <= depth[known].max()


@settings(max_examples=20, deadline=None)
@given(frames())
def test_constant_depth_stays_constant(frame: tuple) -> None:
    image, _, known = frame
    np.testing.assert_allclose(colorize(image, np.where(known, 3.7, 0.0)), 3.7, rtol=1e-9)


def test_a_full_map_is_returned_as_it_is() -> None:
    depth = np.random.default_rng(0).uniform(1, 9, (17, 23)).astype(np.float32)
    filled = colorize(np.zeros((17, 23), np.uint8), depth)
    np.testing.assert_array_equal(filled, depth)
    assert not np.shares_memory(filled, depth)


def test_depth_stops_at_edges_of_the_image() -> None:
    image, depth = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.float32)
    image[:, 30:] = 255
    depth[:, 5], depth[:, 55] = 1, 5
    filled = colorize(image, depth)
    assert np.abs(filled[:, :29] - 1).max() < 0.1
    assert np.abs(filled[:, 31:] - 5).max() < 0.1


def test_validity_may_be_given() -> None:
    depth = np.array([[1.0, 9.0, 3.0]])
    filled = colorize(np.zeros((1, 3), np.uint8), depth, valid=np.array([[True, False, True]]))
    np.testing.assert_allclose(filled, [[1, 2, 3]])


def test_integers_become_floats() -> None:
    filled = colorize(np.zeros((1, 3), np.uint8), np.array([[1, 0, 2]], np.uint16))
    np.testing.assert_allclose(filled, [[1, 1.5, 2]])


@pytest.mark.parametrize(
    ("image", "depth", "message"),
    [
        (np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3)), "no pixel has depth"),
        (np.zeros((2, 3, 3), np.uint8), np.full((2, 3), np.nan), "no pixel has depth"),
        (np.zeros((2, 4, 3), np.uint8), np.ones((2, 3)), "one height and width"),
        (np.zeros((2, 3, 4), np.uint8), np.eye(2, 3), r"\[H, W, 3\] or \[H, W\]"),
        (np.full((2, 3), 200.0), np.eye(2, 3), "must lie in 0-1"),
        (np.full((2, 3), np.nan), np.eye(2, 3), "must lie in 0-1"),
        (np.full((2, 3), 200), np.eye(2, 3), "must be uint8"),
    ],
)
def test_bad_input_is_explained(image: np.ndarray, depth: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        colorize(image, depth)
