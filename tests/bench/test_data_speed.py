# SPDX-License-Identifier: Apache-2.0
"""bench/data_speed.py: every layout is read by both loaders, and loaders that disagree get no rate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import data_speed
from data_layouts import LAYOUTS


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_both_loaders_read_the_same_frames(layout, tmp_path):
    root, plain = layout.write(tmp_path, 2)
    ours = data_speed.our_loader(layout, root, "none")
    assert data_speed.difference(ours, data_speed.plain_loader(plain, False), 2) == ""


def test_loaders_that_disagree_are_refused(tmp_path):
    layout = LAYOUTS[0]
    root, plain = layout.write(tmp_path, 2)
    ours = data_speed.our_loader(layout, root, "none")

    def other_image(index):
        image, depth = plain(1 - index)
        return image, depth

    def other_depth(index):
        image, depth = plain(index)
        return image, 2 * depth

    assert "images differ" in data_speed.difference(ours, data_speed.plain_loader(other_image, False), 2)
    assert "median depths differ" in data_speed.difference(ours, data_speed.plain_loader(other_depth, False), 2)
    broken = layout._replace(write=lambda root, count: (layout.write(root, count)[0], other_image))
    row = data_speed.measure(broken, 2, 1)
    assert row["status"] == "refused"
    assert "paper" not in row
    assert "refused" in data_speed.table([row]).markdown()


def test_the_command_measures_and_writes_its_file(tmp_path, capsys):
    out = tmp_path / "data.json"
    assert data_speed.main(["--only", "packed", "--frames", "1", "--rounds", "1", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["packed", "packed, lzf"]
    assert all(row["paper"] > 0 and row["plain"] > 0 for row in rows)
    assert "packed, lzf" in capsys.readouterr().out


def test_wrong_flags_name_what_there_is(capsys):
    with pytest.raises(SystemExit):
        data_speed.main(["--only", "nothing"])
    assert "nyu-zip" in capsys.readouterr().err
