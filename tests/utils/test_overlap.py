# SPDX-License-Identifier: Apache-2.0
"""Threads that read ahead and write behind keep order and errors."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlr.utils.overlap import Behind, ahead


@given(st.lists(st.integers()), st.integers(1, 5))
def test_items_come_in_order(items, count):
    assert list(ahead(iter(items), count)) == items


def test_items_are_made_before_they_are_asked_for_but_not_more_than_wait():
    made, second = [], threading.Event()

    def items():
        for number in range(10):
            made.append(number)
            if number == 2:
                second.set()
            yield number

    reader = ahead(items(), 2)
    assert next(reader) == 0
    assert second.wait(10)
    assert made == [0, 1, 2]
    assert threading.active_count() > 1
    reader.close()
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_an_error_comes_in_its_turn():
    def items():
        yield 1
        yield 2
        raise OSError("cut off")

    reader = ahead(items(), 3)
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(OSError, match="cut off"):
        next(reader)


def test_calls_are_made_in_order_elsewhere():
    done, names = [], set()

    def call(number):
        names.add(threading.current_thread().name)
        done.append(number)

    with Behind(2) as behind:
        for number in range(20):
            behind(call, number)
    assert done == list(range(20))
    assert len(names) == 1
    assert threading.current_thread().name not in names


@pytest.mark.parametrize("calls", [1, 9])
def test_what_a_call_raises_ends_the_block(calls):
    def fails():
        raise OSError("disk full")

    def writing():
        with Behind(2) as behind:
            for _ in range(calls):
                behind(fails)

    with pytest.raises(OSError, match="disk full"):
        writing()


def test_an_error_in_the_block_is_not_hidden_by_one_of_a_call():
    def fails():
        raise OSError("disk full")

    def writing():
        with Behind(2) as behind:
            behind(fails)
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        writing()
