# SPDX-License-Identifier: Apache-2.0
"""Writes small data sets in the layouts they are published in, so that readers meet the real axis orders and units."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (48, 64)


def frame(number: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Image and depth in metres that differ in every frame, row and column, so that a swapped axis shows."""
    random = np.random.default_rng(number)
    height, width = size
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    depth = 1 + number / 10 + np.arange(height)[:, None] / 50 + np.arange(width) / 100
    return image, depth.astype(np.float32)


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    return file.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def integers(depth: np.ndarray, steps: float) -> np.ndarray:
    return np.rint(depth * steps).astype(np.uint16)


def write_folder(root: Path, numbers: range, unit: float = 1000, **size) -> None:
    for number in numbers:
        image, depth = frame(number, **size)
        write(root / "rgb" / f"{number:03d}.png", encoded(image))
        write(root / "depth" / f"{number:03d}.png", encoded(integers(depth, unit)))


def write_nyu_h5(root: Path) -> None:
    for name, number in (("train/kitchen_1/00001", 0), ("train/office_2/00006", 1), ("val/official/00001", 2)):
        image, depth = frame(number)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(root / f"{name}.h5", "w") as file:
            file["rgb"], file["depth"] = image.transpose(2, 0, 1), depth


def write_nyu_zip(path: Path, split: str, numbers: range, extra_row: str = "") -> None:
    name = path.stem
    with zipfile.ZipFile(path, "w") as archive:
        rows = []
        for number in numbers:
            image, depth = frame(number)
            rows.append(f"{name}/rgb/{number}.png,{name}/depth/{number}.png")
            archive.writestr(f"{name}/rgb/{number}.png", encoded(image))
            archive.writestr(f"{name}/depth/{number}.png", encoded(integers(depth, 6553.5)))
        archive.writestr(f"{name}/{split}.csv", "\r\n".join([*rows, *filter(None, [extra_row])]) + "\r\n")


def write_nyu_sync(root: Path) -> None:
    lines = []
    for number in range(3):
        image, depth = frame(number)
        depth[:5] = 0
        write(root / "sync" / "kitchen_0028a" / f"rgb_{number:05d}.jpg", encoded(image, "JPEG"))
        write(root / "sync" / "kitchen_0028a" / f"sync_depth_{number:05d}.png", encoded(integers(depth, 1000)))
        lines.append(f"/kitchen_0028a/rgb_{number:05d}.jpg /kitchen_0028a/sync_depth_{number:05d}.png 518.8579")
    lines.insert(1, "/kitchen_0028a/rgb_00099.jpg /kitchen_0028a/sync_depth_00099.png 518.8579")
    write(root / "nyudepthv2_train_files_with_gt.txt", "\r\n".join(lines) + "\r\n\r\n")
    image, depth = frame(7)
    write(root / "official_splits/test/bathroom/rgb_00045.jpg", encoded(image, "JPEG"))
    write(root / "official_splits/test/bathroom/sync_depth_00045.png", encoded(integers(depth, 1000)))
    line = "bathroom/rgb_00045.jpg bathroom/sync_depth_00045.png 518.8579\n"
    write(root / "nyudepthv2_test_files_with_gt.txt", line)


KITTI_SIZE = (375, 1242)
DRIVE, DATE = "2011_09_26_drive_0002_sync", "2011_09_26"


def write_kitti(root: Path) -> None:
    """Two frames of the left and one of the right camera, BTS lines, one without ground truth."""
    for camera, number in (("image_02", 5), ("image_02", 69), ("image_03", 69)):
        image, depth = frame(number + (camera == "image_03"), KITTI_SIZE)
        depth[np.random.default_rng(number).random(depth.shape) > 0.05] = 0
        write(root / DATE / DRIVE / camera / "data" / f"{number:010d}.png", encoded(image))
        write(
            root / "data_depth_annotated/train" / DRIVE / "proj_depth/groundtruth" / camera / f"{number:010d}.png",
            encoded(integers(depth, 256)),
        )
    image, truth = f"{DATE}/{DRIVE}/image_0%d/data/%010d.png", f"{DRIVE}/proj_depth/groundtruth/image_0%d/%010d.png"
    left, right = ((image % (c, 69), truth % (c, 69)) for c in (2, 3))
    write(root / "eigen_train_files_with_gt.txt", f"{' '.join(left)} 721.5377 {' '.join(right)}\n")
    lines = [f"{image % (2, 5)} {truth % (2, 5)} 721.5377", f"{image % (2, 70)} None 721.5377"]
    write(root / "eigen_test_files_with_gt.txt", "\n".join(lines))


MAKE3D_NAMES = ("math1-p-046t000", "10.21op2-p-015t000")


def make3d_grid(number: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(1, 80, (55, 305, 4))


def write_make3d(root: Path, images: str = "Test134", depths: str = "Gridlaserdata") -> None:
    for number, name in enumerate(MAKE3D_NAMES):
        write(root / images / f"img-{name}.jpg", encoded(frame(number, (227, 170))[0], "JPEG"))
        (root / depths).mkdir(exist_ok=True)
        savemat(root / depths / f"depth_sph_corr-{name}.mat", {"Position3DGrid": make3d_grid(number)})


def write_nyu_parquet(root: Path, split: str, numbers: range, rows_in_group: int = 2) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    nested = pa.list_(pa.list_(pa.list_(pa.float32())))
    frames = [frame(number) for number in numbers]
    table = pa.table(
        {
            "image": pa.array([(i.transpose(2, 0, 1) / np.float32(255)).tolist() for i, _ in frames], nested),
            "depth": pa.array([d[None].tolist() for _, d in frames], nested),
            "segmentation": pa.array([0] * len(frames)),
        }
    )
    (root / "data").mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=rows_in_group)


SUN_FRAMES = ("kv2/kinect2data/000002_2014-05-26-resize", "kv1/NYUdata/NYU0034", "xtion/sun3ddata/a/b/0000078")


def write_sunrgbd(root: Path) -> None:
    """Three frames; the toolbox reads depth as bitor(bitshift(d, -3), bitshift(d, 16 - 3)) / 1000."""
    for number, name in enumerate(SUN_FRAMES):
        image, depth = frame(number)
        depth[:4] = 0
        write(root / "SUNRGBD" / name / "image" / f"{number:07d}.jpg", encoded(image, "JPEG"))
        for kind, millimetres in (("depth_bfx", integers(depth, 1000)), ("depth", integers(depth * 2, 1000))):
            stored = (millimetres << 3) | (millimetres >> 13)
            write(root / "SUNRGBD" / name / kind / f"{number:07d}_abs.png", encoded(stored))
    paths = [f"/n/fs/sun3d/data/SUNRGBD/{name}" for name in (*SUN_FRAMES, "kv2/gone")]
    split = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    split.parent.mkdir(parents=True)
    cells = np.array([paths[0], paths[1] + "/", paths[3]], dtype=object)
    savemat(split, {"alltrain": cells[None], "alltest": np.array([paths[2]], dtype=object)[None]})


SCENES = ("17DRP5sb8fy", "1LXtFkjw3qL", "2azQ1b91cZZ")


def write_matterport3d(root: Path, layout: str = "v1/scans/{scene}/{scene}/{kind}") -> None:
    """A scene of each split with two views; one image of the first has no depth."""
    for number, scene in enumerate(SCENES):
        for view in range(2):
            image, depth = frame(2 * number + view)
            depth[:4] = 0
            folder, panorama = (
                (root / layout.format(scene=scene, kind=f"undistorted_{k}_images") for k in ("color", "depth")),
                "0b22fa63d0f54a529c525afbf2e8bb25",
            )
            colours, depths = folder
            write(colours / f"{panorama}_i{view}_5.jpg", encoded(image, "JPEG"))
            write(depths / f"{panorama}_d{view}_5.png", encoded(integers(depth, 4000)))
    write(colours.parents[0] / "other" / "x.jpg", b"")
    for name, scenes in (("train", (*SCENES[:1], "nowhere")), ("val", SCENES[1:2]), ("test", SCENES[2:])):
        write(root / "tasks/benchmark" / f"scenes_{name}.txt", "\n".join(scenes) + "\n")


DIW_PAIRS = {"train_val": (">", "<", ">"), "test": (">", "<")}


def write_diw(root: Path, listed: tuple[int, int] = SIZE) -> None:
    """Images of 48 x 64 pixels with a pair each; the list may have the size before they were reduced."""
    for split, signs in DIW_PAIRS.items():
        lines = []
        for number, sign in enumerate(signs):
            write(root / f"DIW_{split}" / f"{number}.thumb", encoded(frame(number)[0], "JPEG"))
            lines += [f"./DIW_{split}/{number}.thumb", f"11,21,31,41,{sign},{listed[1]},{listed[0]}"]
        write(root / "DIW_Annotations" / f"DIW_{split}.csv", "\n".join(lines) + "\n")


def redweb_values(number: int) -> np.ndarray:
    """Eight bits that grow with depth; 255 is unknown."""
    depth = frame(number)[1]
    values = (254 * (depth - depth.min()) / np.ptp(depth)).astype(np.uint8)
    values[:6] = 255
    return values


def write_redweb(root: Path, count: int = 4) -> None:
    for number in range(count):
        write(root / "Imgs" / f"{number}.jpg", encoded(frame(number)[0], "JPEG"))
        write(root / "RDs" / f"{number}.png", encoded(redweb_values(number)))


# --- looking at what was read


def arrays(sample: Any) -> tuple[np.ndarray, np.ndarray]:
    return sample["image"].permute(1, 2, 0).numpy(), sample["depth"][0].numpy()


def assert_frame(sample: Any, number: int, step: float = 0.0, jpeg: bool = False, size: tuple[int, int] = SIZE) -> None:
    """The frame that was written, to half a step of its integers, and valid exactly where it has depth."""
    image, depth = arrays(sample)
    wanted_image, wanted = frame(number, size)
    assert depth.dtype == np.float32
    if jpeg:
        assert np.abs(image.astype(float) - wanted_image).mean() < 4
    else:
        np.testing.assert_array_equal(image, wanted_image)
    known = depth > 0
    np.testing.assert_allclose(depth[known], wanted[known], atol=step / 2 + 1e-5)
    np.testing.assert_array_equal(sample["valid"][0].numpy() > 0, known)


def cut(path: Path, keep: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
