# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlr.losses.space import FAMILIES, KINDS, SCALES, TABLE5, LossSpace, loss_name

ALL = LossSpace("all")


def test_all_78_names_stand_in_the_order_of_table_1_scale_by_scale():
    assert len(ALL) == 78 == len(set(ALL.names))
    kinds = ["D", "M", "M5", "M17", "M65", "r", "c", "rr", "rc", "cc", "N", "Nr", "Nc"]
    assert ALL.names[:13] == tuple(f"{kind}/0" for kind in kinds)
    assert ALL.names[13 * 3 + 3] == "M17/3"
    assert ALL.indices == tuple(range(78))


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ("all", 78),
        ("depth", 6),
        ("mean", 24),
        ("gradient", 30),
        ("normal", 18),
        ("*/3-5", 39),
        ("*/*", 78),
        ("D/0+r/0+c/0+N/0", 4),
        ("D/*", 6),
        ("gradient/0-2", 15),
        ("depth+D/0 + D/*", 6),
        (["D/0", "Nc/5"], 2),
    ],
)
def test_selection_grammar(selection, count):
    assert len(LossSpace(selection)) == count


def test_table_5_states_its_ten_sets_with_the_papers_counts():
    counts = [1, 4, 4, 24, 30, 36, 13, 39, 39, 78]
    assert [len(LossSpace(s)) for s in TABLE5.values()] == counts
    assert [len(LossSpace(name)) for name in TABLE5] == counts
    assert LossSpace("hu").names == ("D/0", "r/0", "c/0", "N/0")


@pytest.mark.filterwarnings("ignore:LossSpace puts its losses")
@given(st.sets(st.integers(0, 77), min_size=1))
def test_a_space_made_of_names_has_those_names_in_table_order(terms):
    names = [loss_name(t) for t in terms]
    assert LossSpace("+".join(names)).indices == tuple(sorted(terms))
    assert LossSpace(names) == LossSpace("+".join(reversed(names)))


@given(st.sampled_from(sorted(FAMILIES)), st.integers(0, SCALES - 1))
def test_a_family_is_the_union_of_its_kinds(family, scale):
    assert LossSpace(f"{family}/{scale}").names == tuple(f"{k}/{scale}" for k in KINDS if k in FAMILIES[family])


@pytest.mark.parametrize(
    ("wrong", "suggested"),
    [("M71/3", "M17/3"), ("d/0", "D/0"), ("grad", "gradient"), ("D", "D/*"), ("D/6", "D/5"), ("coarze", "coarse")],
)
def test_a_wrong_name_is_refused_with_near_valid_ones(wrong, suggested):
    with pytest.raises(ValueError, match="did you mean") as error:
        LossSpace(f"depth+{wrong}")
    assert suggested in str(error.value)
    assert repr(wrong) in str(error.value)


@pytest.mark.parametrize("wrong", ["", "+", "D/0++r/0", "D/3-1", "D/0-6", "D/x", "*"])
def test_malformed_selections_are_refused(wrong):
    with pytest.raises(ValueError, match="unknown loss"):
        LossSpace(wrong)


def test_a_selection_that_is_no_text_is_refused():
    with pytest.raises(TypeError):
        LossSpace([1, 2])


def test_names_in_another_order_are_told():
    with pytest.warns(UserWarning, match=r"order of Table 1: D/0, r/0\. .*weights by name"):
        assert LossSpace(["r/0", "D/0"]).names == ("D/0", "r/0")


@pytest.mark.filterwarnings("error")
def test_names_in_table_order_and_selections_are_not_told():
    assert LossSpace(["D/0", "r/0"]).names == LossSpace("r/0+D/0").names
    assert len(LossSpace(["normal", "depth"])) == 24
