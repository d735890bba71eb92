# SPDX-License-Identifier: Apache-2.0
"""What mlr check-data finds in data sets that have one fault each, and in one that has none."""

from __future__ import annotations

import json
from pathlib import Path

import data_files as files
import numpy as np
import pytest
from PIL import Image

from mlr.cli import main
from mlr.data.tools.check import examine
from mlr.data.tools.frame_report import EDGES
from mlr.data.tools.prepare import prepare

FRAME = Path(__file__).resolve().parents[2] / "examples" / "xtion_bookshelf"


def shots(root: Path, train: range = range(6), val: range = range(6, 9), unit: float = 1000) -> str:
    files.write_folder(root / "train", train, unit)
    files.write_folder(root / "val", val, unit)
    return f"folder:{root}"


def check(dataset: str, **options):
    return examine(dataset, ["train", "val"], options)


def replace_depth(root: Path, number: int, depth: np.ndarray, split: str = "train") -> None:
    (root / split / "depth" / f"{number:03d}.png").unlink(missing_ok=True)
    np.save(root / split / "depth" / f"{number:03d}.npy", depth)


def with_diagonal(value: float) -> np.ndarray:
    return np.where(np.eye(*files.SIZE), value, files.frame(1)[1])


def test_a_clean_set_has_its_numbers_and_no_complaint(tmp_path):
    report = check(shots(tmp_path), unit="mm")
    assert (report.errors, report.warnings) == ([], [])
    assert report.frames == {"train": 6, "val": 3}
    assert report.sizes == {"48x64": 9}
    depths = np.stack([files.integers(files.frame(i)[1], 1000) / np.float32(1000) for i in range(9)])
    assert report.median == pytest.approx(np.median([np.median(d) for d in depths]), abs=1e-3)
    assert report.largest == pytest.approx(depths.max(), abs=1e-6)
    assert report.missing == 0
    counts = np.histogram(depths, EDGES)[0] / depths.size
    assert list(report.histogram.values()) == pytest.approx(counts, abs=1e-3)
    assert report.histogram["1-1.5 m"] == pytest.approx(counts[2], abs=1e-3)


def test_workers_find_the_same(tmp_path):
    dataset = shots(tmp_path, range(40), range(40, 44))
    alone, two = (examine(dataset, ["train", "val"], {"unit": "mm"}, workers=n) for n in (0, 2))
    assert alone == two


@pytest.mark.parametrize(("unit", "steps"), [("mm", 1000), ("nyu-10m", 6553.5)])
def test_the_unit_of_integer_depth_is_guessed_and_said(tmp_path, unit, steps):
    files.write_folder(tmp_path / "train", range(2, 6), steps)
    image, depth = files.frame(1)
    files.write(tmp_path / "train/rgb/9.png", files.encoded(image))
    files.write(tmp_path / "train/depth/9.png", files.encoded(files.integers(depth * 3, steps)))
    report = examine(f"folder:{tmp_path}", ["train"], {})
    assert report.unit == unit
    assert f"--depth-unit {unit}" in report.warnings[0]
    assert report.errors == []
    assert report.median == pytest.approx(2.185, abs=1e-3)  # of frame 4


def test_lidar_in_steps_of_a_256th_metre_is_recognised(tmp_path):
    depth = np.where(np.random.default_rng(0).random(files.SIZE) < 0.05, files.frame(0)[1] * 20, 0)
    files.write(tmp_path / "rgb/0.png", files.encoded(files.frame(0)[0]))
    files.write(tmp_path / "depth/0.png", files.encoded(files.integers(depth, 256)))
    assert examine(f"folder:{tmp_path}", ["train"], {}).unit == "kitti"


def test_a_wrong_unit_is_an_error_that_names_the_likely_one(tmp_path):
    report = check(shots(tmp_path), unit="m")
    for split, median in (("train", 2.035), ("val", 2.485)):
        assert any(
            line.startswith(f"{split}: the median depth") and f"as mm it would be {median:.2f}"[:-1] in line
            for line in report.errors
        )
    report = check(shots(tmp_path / "b"), unit="10000")
    assert any("check the unit" in line for line in report.warnings)


def test_splits_are_judged_apart(tmp_path):
    files.write_folder(tmp_path / "train", range(6), 100)
    files.write_folder(tmp_path / "val", range(6, 9), 1000)
    report = check(f"folder:{tmp_path}", unit="mm")
    assert any("0.204 m in train and 2.49 m in val, 12.2 times" in line for line in report.errors)
    assert any(line.startswith("train: the median depth is 0.2") for line in report.warnings)


def test_a_unit_is_guessed_for_each_split(tmp_path):
    files.write_folder(tmp_path / "train", range(2, 6), 6553.5)
    for number in range(3):
        image, depth = files.frame(number)
        files.write(tmp_path / f"train/rgb/9{number}.png", files.encoded(image))
        files.write(tmp_path / f"train/depth/9{number}.png", files.encoded(files.integers(depth * 3, 6553.5)))
    files.write_folder(tmp_path / "val", range(6, 9))
    report = check(f"folder:{tmp_path}")
    assert any("train like 'nyu-10m', val like 'mm'" in line for line in report.errors)
    assert report.unit is None


def test_a_unit_is_guessed_even_if_the_first_frame_needs_none(tmp_path):
    shots(tmp_path)
    replace_depth(tmp_path, 0, files.frame(0)[1])
    report = check(f"folder:{tmp_path}")
    assert (report.unit, report.errors) == ("mm", [])


def test_integers_that_fit_no_unit_are_said_to(tmp_path):
    files.write(tmp_path / "rgb/0.png", files.encoded(files.frame(0)[0]))
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth/0.npy", np.full(files.SIZE, 300_000, np.int32))
    (error, _) = examine(f"folder:{tmp_path}", ["train"], {}).errors
    assert "no known unit makes depth of values up to 300,000" in error


def test_one_frame_that_training_would_refuse_is_found_among_good_ones(tmp_path):
    dataset = shots(tmp_path)
    replace_depth(tmp_path, 2, files.frame(2)[1] * 1000)
    (error,) = check(dataset, unit="mm").errors
    assert "depth that training refuses: 1 (train/rgb/002.png" in error


def test_true_depth_from_the_air_is_usable_by_saying_so(tmp_path):
    dataset = shots(tmp_path)
    for split, numbers in (("train", range(6)), ("val", range(6, 9))):
        for number in numbers:
            replace_depth(tmp_path, number, files.frame(number)[1] * 200, split)
    assert any("or say that it is true with the option max_depth" in line for line in check(dataset).errors)
    report = check(dataset, max_depth="800")
    assert (report.errors, report.warnings) == ([], [])
    assert report.median == pytest.approx(437, rel=1e-3)


def test_pictures_turned_by_exif_are_counted(tmp_path):
    dataset, turned = shots(tmp_path), Image.Exif()
    turned[0x0112] = 6
    for name in ("001", "003"):
        path = tmp_path / f"train/rgb/{name}.png"
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=turned)
    report = check(dataset, unit="mm")
    assert report.errors == []
    assert report.warnings == ["picture turned as its EXIF orientation says: 2 (train/rgb/001.png; train/rgb/003.png)"]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (lambda p: (p / "train/rgb/002.png").write_bytes(b"no image"), "errors", "002.png"),
        (lambda p: replace_depth(p, 1, np.ones((40, 64))), "errors", "48 x 64 pixels and the depth 40 x 64"),
        (lambda p: replace_depth(p, 1, np.zeros(files.SIZE)), "errors", "no pixel has depth: 1 (train/rgb/001.png)"),
        (lambda p: files.write_folder(p / "val", range(2, 3)), "errors", "same image in train and val: 1"),
        (lambda p: replace_depth(p, 1, np.full(files.SIZE, 2.0)), "warnings", "one single value: 1"),
        (lambda p: replace_depth(p, 1, with_diagonal(-1)), "warnings", "negative depth"),
        (lambda p: replace_depth(p, 1, with_diagonal(np.inf)), "warnings", "NaN or infinite"),
        (lambda p: replace_depth(p, 1, with_diagonal(np.nan)), "warnings", "NaN or infinite"),
        (lambda p: [(p / f"train/{kind}/9.png").write_bytes((p / f"train/{kind}/001.png").read_bytes())
                    for kind in ("rgb", "depth")], "warnings", "the same frame twice: 1 (train/rgb/001.png = "),
    ],
)  # fmt: skip
def test_each_fault_is_found_and_named(tmp_path, fault, kind, message):
    dataset = shots(tmp_path)
    fault(tmp_path)
    report = check(dataset, unit="mm")
    found = getattr(report, kind)
    assert len(found) == 1
    assert message in found[0]
    assert getattr(report, {"errors": "warnings", "warnings": "errors"}[kind]) == []


def test_holes_are_measured(tmp_path):
    report = examine(f"folder:{FRAME}", ["train"], {})
    assert report.missing == pytest.approx(0.110596, abs=1e-6)
    assert report.sizes == {"480x640": 1}
    assert report.errors == []


def test_a_published_list_with_missing_pairs_is_a_warning(tmp_path):
    files.write_nyu_sync(tmp_path)
    report = check(f"nyu-sync:{tmp_path}")
    assert report.frames == {"train": 3, "val": 1}
    assert report.errors == []
    assert "1 listed pair left out: line 2" in report.warnings[0]


def test_a_coarse_laser_grid_is_no_mismatch(tmp_path):
    files.write_make3d(tmp_path)
    report = examine(f"make3d:{tmp_path}", ["val"], {})
    assert report.errors == []
    assert report.sizes == {"227x170, depth 55x305": 2}


def test_a_part_of_the_frames_may_be_looked_at(tmp_path):
    dataset = shots(tmp_path)
    assert examine(dataset, ["train", "val"], {"unit": "mm"}, sample=2).frames == {"train": 2, "val": 2}


def test_damage_in_a_packed_file_is_found(tmp_path):
    import h5py

    out = tmp_path / "x.h5"
    prepare(["rooms"], out, data_options="length=2,height=48,width=64", compression="none", workers=0, quiet=True)
    with h5py.File(out, "r+") as file:
        file["48x64/image"][0, 0, 0] += 1
    report = check(f"packed:{out}")
    assert report.frames == {"train": 1, "val": 2}
    assert "checksum differs" in report.errors[0]


# --- the command


def test_scripts_get_json_and_an_exit_code(tmp_path, capsys):
    dataset = shots(tmp_path)
    assert main(["check-data", dataset, "--options", "unit=mm", "--json", "--workers=0"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["frames"] == {"train": 6, "val": 3}
    (tmp_path / "train/depth/000.png").write_bytes(b"")
    assert main(["check-data", dataset, "--options", "unit=mm", "--json", "--workers=0"]) == 1
    assert "000.png" in json.loads(capsys.readouterr().out)["errors"][0]


def test_people_get_a_table(tmp_path, capsys):
    assert main(["check-data", shots(tmp_path), "--options=unit=mm", "--workers=0"]) == 0
    said = capsys.readouterr().out
    for part in ("train frames", "9 of 48x64", "median depth", "1-1.5 m", "usable"):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["folder:/nowhere"], 1, "no such folder"),
        (["kitty:/nowhere"], 1, "did you mean kitti"),
        (["folder"], 1, "NAME:PATH"),
        (["rooms:/nowhere"], 1, "needs no files"),
        (["rooms", "--sample=0"], 1, "--sample must be at least 1"),
        (["rooms", "--splits=test"], 1, "--splits must be"),
        (["rooms", "--smaple=3"], 2, "did you mean --sample"),
        ([], 2, "arguments are required: DATASET"),
    ],
)
def test_what_is_wrong_with_the_command_is_said(arguments, code, message, capsys):
    if code == 2:
        with pytest.raises(SystemExit, match="2"):
            main(["check-data", *arguments])
    else:
        assert main(["check-data", *arguments]) == code
    output = capsys.readouterr()
    assert message in " ".join((output.err + output.out).split())
    assert "Traceback" not in output.err
