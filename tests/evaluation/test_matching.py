# SPDX-License-Identifier: Apache-2.0
"""Every prediction is scored against its own frame, or refused: never against another."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import data_files as files
import numpy as np
import pytest
from evaluating import depth, means, refusal, run
from hypothesis import given
from hypothesis import strategies as st

from mlr.cli import main
from mlr.data import DataError
from mlr.evaluation.matching import match_files, match_names, match_order
from mlr.utils.files import natural_key

FOLDER = Path("pred")
SUFFIXES = (".jpg", ".png", ".jpeg")


@st.composite
def frames(draw) -> list[str]:
    """Ids of a data set: numbers with or without zeros, in one folder or many, with mixed suffixes."""
    scenes = draw(st.sampled_from([[""], ["rgb/"], ["a/", "b/"], ["s1/rgb/", "s2/rgb/", "s10/rgb/"]]))
    digits, step = draw(st.sampled_from([1, 4])), draw(st.sampled_from([1, 7, 10]))
    first, count = draw(st.integers(0, 12)), draw(st.integers(1, 13))
    prefix = draw(st.sampled_from(["", "img_", "frame"]))
    return [
        f"{scene}{prefix}{first + step * i:0{digits}d}{draw(st.sampled_from(SUFFIXES))}"
        for scene in scenes
        for i in range(count)
    ]


def in_some_order(draw, names: list[str]) -> list[str]:
    kind = draw(st.sampled_from(["natural", "letters", "list"]))
    if kind == "list":
        return draw(st.permutations(names))
    return sorted(names, key=natural_key) if kind == "natural" else sorted(names)


def stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


BY_NAME = {
    "whole": stem,
    "joined": lambda name: stem(name).replace("/", "_"),
    "end": lambda name: PurePosixPath(stem(name)).name,
    "prefixed": lambda name: str(PurePosixPath(stem(name)).with_name("pred" + PurePosixPath(stem(name)).name)),
    "number": lambda name: "pred" + "".join(c for c in PurePosixPath(stem(name)).name if c.isdigit()),
}


@given(st.data(), frames(), st.sampled_from(sorted(BY_NAME)), st.sampled_from(["name", "order"]))
def test_files_named_after_their_frames_are_never_given_to_others(data, names, scheme, how):
    names = in_some_order(data.draw, names)
    truth = [FOLDER / (BY_NAME[scheme](name) + data.draw(st.sampled_from([".npy", ".png"]))) for name in names]
    given_files = data.draw(st.permutations(truth))
    try:
        paths, outside = match_files(FOLDER, given_files, names, how)
    except DataError:
        same = len({PurePosixPath(name).name for name in map(stem, names)}) < len(names)
        assert same or scheme in ("prefixed", "number")  # only these may leave a doubt
        return
    assert paths == truth
    assert outside == []


@given(st.data(), frames(), st.sampled_from(["{}", "pred_{}", "out/{:05d}"]), st.integers(0, 1))
def test_files_that_a_loop_has_numbered_are_taken_in_the_order_of_the_data_or_refused(data, names, form, first):
    names = in_some_order(data.draw, names)
    truth = [FOLDER / f"{form.format(number)}.npy" for number in range(first, first + len(names))]
    try:
        paths = match_order(FOLDER, data.draw(st.permutations(truth)), names).paths
    except DataError:
        return
    by_name = {PurePosixPath(stem(name)).name.strip("imgfrae_").lstrip("0") for name in names}
    if not by_name & {str(number) for number in range(1, first + len(names))}:
        assert paths == truth
    elif paths != truth:  # the frames have these very numbers, and they go before the order
        assert [int(path.stem.removeprefix("pred_")) for path in paths] == [
            int(PurePosixPath(stem(name)).name.strip("imgfrae_")) for name in names
        ]


def test_natural_order_serves_frames_that_have_other_numbers():
    names = [f"val/rgb/{n}.png" for n in (6, 7, 8)]
    truth = [FOLDER / f"pred{n}.npy" for n in (9, 10, 100)]
    assert match_order(FOLDER, truth[::-1], names).paths == truth
    with pytest.raises(DataError, match="ambiguous"):  # pred8 for frame 7?
        match_order(FOLDER, [FOLDER / f"pred{n}.npy" for n in (7, 8, 9)], names)


def test_numbers_of_frames_go_before_the_order_of_a_list():
    names = [f"rgb/{n}.png" for n in (17, 3, 5)]
    assert [p.stem for p in match_order(FOLDER, [FOLDER / f"p{n}.npy" for n in (3, 5, 17)], names).paths] == [
        "p17", "p3", "p5",
    ]  # fmt: skip


def test_a_counter_over_a_list_and_the_numbers_of_its_frames_are_not_told_apart():
    names = [f"rgb/{n}.png" for n in (3, 1, 2)]
    with pytest.raises(DataError, match=r"ambiguous: .*rgb/3.png, rgb/1.png, rgb/2.png.*p1, p2, p3"):
        match_order(FOLDER, [FOLDER / f"p{n}.npy" for n in (1, 2, 3)], names)
    unlike = [FOLDER / f"p{n}.npy" for n in (0, 1, 2)]
    assert match_order(FOLDER, unlike, names).paths == unlike


def test_a_picture_of_the_same_stem_is_told_apart_by_its_suffix():
    truth = [FOLDER / "1.png.npy", FOLDER / "1.jpg.npy"]
    assert match_names(FOLDER, truth[::-1], ["1.png", "1.jpg"]).paths == truth
    with pytest.raises(DataError, match="could belong to several frames"):
        match_names(FOLDER, [FOLDER / "1.npy"], ["1.png", "1.jpg"])


@pytest.mark.parametrize("how", ["name", "order"])
def test_files_of_other_splits_are_set_aside_where_the_split_has_all_of_its_own(how):
    every = [f"rgb/{n}.png" for n in range(1, 31)]
    names, form = every[::10], "pred{}.npy" if how == "order" else "{}.npy"
    given_files = [FOLDER / form.format(n) for n in range(1, 31)]
    paths, outside = match_files(FOLDER, given_files, names, how, lambda: every)
    assert [path.name for path in paths] == [form.format(n) for n in (1, 11, 21)]
    assert len(outside) == 27
    assert not set(paths) & set(outside)
    with pytest.raises(DataError, match=r"1 file belongs to no frame|as many"):
        match_files(FOLDER, [*given_files, FOLDER / "x31.npy"], names, how, lambda: every)
    with pytest.raises(DataError, match=r"1 of 3 frames have no prediction|as many"):
        match_files(FOLDER, given_files[1:], names, how, lambda: every)

    def absent() -> list[str]:
        raise DataError("there is no other split")

    with pytest.raises(DataError, match=r"27 files belong to no frame|30 predictions and the data set 3 frames"):
        match_files(FOLDER, given_files, names, how, absent)


def test_a_name_that_two_splits_share_means_the_split_that_is_scored():
    every = ["train/rgb/1.png", "train/rgb/2.png", "val/rgb/1.png"]
    assert match_names(FOLDER, [FOLDER / "1.npy"], every[2:], every).paths == [FOLDER / "1.npy"]
    both = [FOLDER / "train/rgb/1.npy", FOLDER / "val/rgb/1.npy", FOLDER / "2.npy"]
    assert match_names(FOLDER, both, every[2:], every) == ([both[1]], [both[2], both[0]])


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def held_out(tmp_path) -> Path:
    """Twelve frames without split: the first and the eleventh are for validation."""
    files.write_folder(tmp_path / "shots", range(12))
    return tmp_path / "shots"


def write_all(folder: Path, form: str, count: int = 12) -> Path:
    folder.mkdir()
    for number in range(count):
        np.save(folder / f"{form.format(number)}.npy", depth(number))
    return folder


@pytest.mark.parametrize(("form", "match"), [("{:03d}", "name"), ("pred{}", "order"), ("rgb_{:03d}", "name")])
def test_predictions_of_all_frames_score_perfectly_on_every_split(held_out, tmp_path, capsys, form, match):
    folder = write_all(tmp_path / "pred", form)
    flags = ["--data", "folder", "--root", held_out, "--depth-unit", "mm", "--match", match]
    for split, count in (("val", 2), ("train", 10), ("all", 12)):
        record = run(capsys, folder, *flags, "--split", split)
        assert record["data"]["split"] == split
        assert record["data"]["frames"] == count
        assert means(record)["rmse"] == 0


def test_files_outside_the_split_are_named(held_out, tmp_path, capsys):
    folder = write_all(tmp_path / "pred", "{:03d}")
    flags = ["--data", "folder", "--root", str(held_out), "--depth-unit", "mm"]
    assert main(["evaluate", str(folder), *flags]) == 0
    assert "10 files belong to frames outside the split: " in capsys.readouterr().err
    (folder / "010.npy").unlink()
    error = refusal(capsys, folder, *flags)
    assert "1 of 2 frames have no prediction (rgb/010.png)" in error
    assert "choose another --split" in error
