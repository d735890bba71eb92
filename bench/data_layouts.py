# SPDX-License-Identifier: Apache-2.0
"""Small data sets in the layouts they are published in, and how a loader without checks reads their files.

All hold the same frames: the real one of ``examples/xtion_bookshelf``, rolled sideways by different amounts, with its
holes. KITTI and Matterport3D have frames of their own size, resized from it.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from machine import ROOT
from PIL import Image
from scipy.io import savemat
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from mlr.data.datasets.packed import Frame, write_frames
from mlr.data.depth_files import read_depth, read_image

#: image [H, W, 3] uint8, depth [H, W] float32 metres with 0 where it is not known
Picture = tuple[np.ndarray, np.ndarray]
#: index -> image [3, H, W] uint8, depth [1, H, W] float32 metres
Plain = Callable[[int], tuple[Tensor, Tensor]]


def pictures(count: int, size: tuple[int, int] | None = None) -> list[Picture]:
    """Frames of real content.

    Args:
        count: how many.
        size: (height, width); None = the camera's 480 x 640.
    """
    folder = ROOT / "examples" / "xtion_bookshelf"
    image, depth = read_image(folder / "rgb.png"), read_depth(folder / "depth_mm.png", "mm")
    if size is not None:
        image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
        depth = np.asarray(Image.fromarray(depth).resize(size[::-1], Image.Resampling.NEAREST))
    return [(np.roll(image, 37 * i, axis=1), np.roll(depth, 37 * i, axis=1)) for i in range(count)]


class Layout(NamedTuple):
    """A data set on disk.

    Attributes:
        name: in the table.
        data: the reader's name.
        write: (folder, number of frames) -> what --root is to be, and the plain loader of its training frames.
        options: of the reader.
        split: which the frames are in.
    """

    name: str
    data: str
    write: Callable[[Path, int], tuple[Path, Plain]]
    options: Mapping[str, Any] = MappingProxyType({})
    split: str = "train"


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    """A picture file: JPEG of quality 95, or PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def integers(depth: np.ndarray, steps: float) -> np.ndarray:
    """Depth in steps of a metre."""
    return np.rint(depth * steps).astype(np.uint16)


def decoded(image: Any, depth: Any, steps: float) -> tuple[Tensor, Tensor]:
    """Image and depth of two files, or of their open contents, by Pillow and torchvision."""
    colours = pil_to_tensor(Image.open(image).convert("RGB"))
    return colours, torch.from_numpy(np.asarray(Image.open(depth)).astype(np.float32) / np.float32(steps))[None]


def _files(root: Path, pairs: list[tuple[str, str]], frames: list[Picture], steps: float, kind: str) -> Plain:
    """Write pairs of picture files; a loader of them."""
    for (image, depth), frame in zip(pairs, frames, strict=True):
        for name, content in ((image, encoded(frame[0], kind)), (depth, encoded(integers(frame[1], steps)))):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    return lambda index: decoded(root / pairs[index][0], root / pairs[index][1], steps)


def _folder(kind: str) -> Callable[[Path, int], tuple[Path, Plain]]:
    def write(root: Path, count: int) -> tuple[Path, Plain]:
        suffix = {"JPEG": "jpg", "PNG": "png"}[kind]
        pairs = [(f"rgb/{i:03d}.{suffix}", f"depth/{i:03d}.png") for i in range(count)]
        return root, _files(root, pairs, pictures(count), 1000, kind)

    return write


def _nyu_sync(root: Path, count: int) -> tuple[Path, Plain]:
    pairs = [(f"sync/den/rgb_{i:05d}.jpg", f"sync/den/sync_depth_{i:05d}.png") for i in range(count)]
    lines = [" ".join([*(f"/{Path(name).relative_to('sync')}" for name in pair), "518.8579"]) for pair in pairs]
    plain = _files(root, pairs, pictures(count), 1000, "JPEG")
    (root / "nyudepthv2_train_files_with_gt.txt").write_text("\n".join(lines) + "\n")
    return root, plain


def _nyu_zip(root: Path, count: int) -> tuple[Path, Plain]:
    path = root / "train795.zip"
    names = [(f"train795/rgb/{i}.png", f"train795/depth/{i}.png") for i in range(count)]
    rows = io.StringIO()
    csv.writer(rows).writerows(names)
    with zipfile.ZipFile(path, "w") as archive:
        for (image, depth), frame in zip(names, pictures(count), strict=True):
            archive.writestr(image, encoded(frame[0]))
            archive.writestr(depth, encoded(integers(frame[1], 6553.5)))
        archive.writestr("train795/train.csv", rows.getvalue())
    archive = zipfile.ZipFile(path)

    def plain(index: int) -> tuple[Tensor, Tensor]:
        image, depth = (io.BytesIO(archive.read(name)) for name in names[index])
        return decoded(image, depth, 6553.5)

    return path, plain


def _nyu_h5(root: Path, count: int) -> tuple[Path, Plain]:
    paths = [root / "train" / "den" / f"{i:05d}.h5" for i in range(count)]
    paths[0].parent.mkdir(parents=True)
    for path, (image, depth) in zip(paths, pictures(count), strict=True):
        with h5py.File(path, "w") as file:
            file["rgb"], file["depth"] = image.transpose(2, 0, 1), depth

    def plain(index: int) -> tuple[Tensor, Tensor]:
        with h5py.File(paths[index]) as file:
            return torch.from_numpy(file["rgb"][()]), torch.from_numpy(file["depth"][()])[None]

    return root, plain


def _nyu(root: Path, count: int) -> tuple[Path, Plain]:
    path, frames = root / "nyu_depth_v2_labeled.mat", pictures(count)
    images, depths = (np.stack([frame[i] for frame in frames]) for i in range(2))
    with h5py.File(path, "w") as file:
        for name, values in (("images", images.transpose(0, 3, 2, 1)), ("depths", depths.transpose(0, 2, 1))):
            file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="gzip")
    numbers = np.arange(1, count + 1)[:, None]
    savemat(root / "splits.mat", {"trainNdxs": numbers, "testNdxs": numbers})
    file = h5py.File(path)

    def plain(index: int) -> tuple[Tensor, Tensor]:
        image, depth = file["images"][index], file["depths"][index]
        return torch.from_numpy(image.transpose(0, 2, 1)), torch.from_numpy(depth.T)[None]

    return root, plain


def _kitti(root: Path, count: int) -> tuple[Path, Plain]:
    date, drive = "2011_09_26", "2011_09_26_drive_0002_sync"
    image = f"{date}/{drive}/image_02/data/{{:010d}}.png"
    depth = f"{drive}/proj_depth/groundtruth/image_02/{{:010d}}.png"
    frames = pictures(count, (375, 1242))
    random = np.random.default_rng(0)
    frames = [(colours, depth * (random.random(depth.shape) < 0.05)) for colours, depth in frames]
    pairs = [(image.format(i), "data_depth_annotated/train/" + depth.format(i)) for i in range(count)]
    plain = _files(root, pairs, frames, 256, "PNG")
    lines = [f"{image.format(i)} {depth.format(i)} 721.5377" for i in range(count)]
    (root / "eigen_train_files_with_gt.txt").write_text("\n".join(lines) + "\n")
    return root, plain


def _matterport3d(root: Path, count: int) -> tuple[Path, Plain]:
    scene, panorama = "17DRP5sb8fy", "0b22fa63d0f54a529c525afbf2e8bb25"
    folder = f"v1/scans/{scene}/{scene}/undistorted_"
    pairs = [
        (f"{folder}color_images/{panorama}_i{i}_5.jpg", f"{folder}depth_images/{panorama}_d{i}_5.png")
        for i in range(count)
    ]
    plain = _files(root, pairs, pictures(count, (1024, 1280)), 4000, "JPEG")
    tasks = root / "tasks" / "benchmark"
    tasks.mkdir(parents=True)
    (tasks / "scenes_train.txt").write_text(scene + "\n")
    return root, plain


def _packed(compression: str) -> Callable[[Path, int], tuple[Path, Plain]]:
    def write(root: Path, count: int) -> tuple[Path, Plain]:
        plain = _folder("JPEG")(root, count)[1]  # of the files that it is made from

        def frame(index: int) -> Frame:
            image, depth = (maps.numpy() for maps in plain(index))
            return Frame(f"{index}", "folder", "train", image.transpose(1, 2, 0), depth[0], depth[0] > 0)

        write_frames(root / "packed.h5", map(frame, range(count)), compression, {})
        return root / "packed.h5", plain

    return write


#: What is measured. Real files of nyu may have other chunks.
LAYOUTS = (
    Layout("folder, JPEG + PNG", "folder", _folder("JPEG"), {"unit": "mm"}, "all"),
    Layout("folder, PNG + PNG", "folder", _folder("PNG"), {"unit": "mm"}, "all"),
    Layout("nyu-sync, JPEG + PNG", "nyu-sync", _nyu_sync),
    Layout("nyu-zip, PNG + PNG", "nyu-zip", _nyu_zip),
    Layout("nyu-h5, a file a frame", "nyu-h5", _nyu_h5),
    Layout("nyu, gzip", "nyu", _nyu),
    Layout("kitti, 375 x 1242", "kitti", _kitti),
    Layout("matterport3d, 1024 x 1280", "matterport3d", _matterport3d),
    Layout("packed", "packed", _packed("none")),
    Layout("packed, lzf", "packed", _packed("lzf")),
)
