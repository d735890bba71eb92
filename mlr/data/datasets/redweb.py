# SPDX-License-Identifier: Apache-2.0
"""ReDWeb_V1 (Xian et al. 2018): photographs with dense relative depth from stereo images of the web.

``Imgs/<name>.jpg`` belongs to ``RDs/<name>.png``, 8 bits, larger = farther, 255 = unknown. The values are an inverse
depth, negated, up to scale and shift. The set has no test split; every tenth image in natural order is held out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mlr.data.datasets.base import DepthDataset, check_pair
from mlr.data.depth_files import DataError, check_pixels, read_image, refuse_irregular
from mlr.data.sample import Sample, make_sample
from mlr.utils.files import list_files

IMAGES, DEPTHS = "Imgs", "RDs"
#: The value of unknown pixels.
UNKNOWN = 255
#: One image in so many is validated on.
HELD_OUT = 10


class ReDWeb(DepthDataset):
    """Images with relative depth in (0, 1], larger = farther, 0 = unknown.

    Args:
        root: folder of Imgs and RDs.
        split: "train" or "val".

    Raises:
        DataError: there are no such folders, or no pair in them.
    """

    truth = "relative"
    left_out = "files without a partner"

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = Path(root)
        images, depths = (self._files(name, suffix) for name, suffix in ((IMAGES, ".jpg"), (DEPTHS, ".png")))
        self.missing = [f"{IMAGES}/{stem}.jpg" for stem in images if stem not in depths]
        self.missing += [f"{DEPTHS}/{stem}.png" for stem in depths if stem not in images]
        pairs = [stem for stem in images if stem in depths]
        held = pairs[HELD_OUT - 1 :: HELD_OUT] or pairs[-1:]
        self.stems = held if split == "val" else [stem for stem in pairs if stem not in set(held)]
        if not self.stems:
            raise DataError(f"{self.root} holds {len(pairs)} pairs of {IMAGES}/NAME.jpg and {DEPTHS}/NAME.png: too few")
        self.images, self.depths = images, depths

    def _files(self, name: str, suffix: str) -> dict[str, Path]:
        folder = self.root / name
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; ReDWeb_V1 holds {IMAGES} and {DEPTHS}")
        return {path.stem: path for path in list_files(folder, (suffix,), recursive=False).files}

    def __len__(self) -> int:
        return len(self.stems)

    def name(self, index: int) -> str:
        """Name of the files without their endings."""
        return self.stems[index]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and relative depth."""
        stem = self.stems[index]
        return read_image(self.images[stem], upright=False), _read_relative(self.depths[stem])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        image, depth = self.read(index)
        check_pair(image, depth, self.name(index))
        sample = make_sample(image, depth, self.name(index))
        sample["metric"] = False
        return sample

    def __repr__(self) -> str:
        return f"{len(self)} images of {self.root}"


def _read_relative(path: Path) -> np.ndarray:
    """Relative depth [H, W], float32: (v + 1) / 256 of the file's v, and 0 where it is unknown."""
    try:
        refuse_irregular(path)
        with Image.open(path, formats=("PNG",)) as picture:
            check_pixels((picture.height, picture.width), str(path))
            if picture.mode != "L":
                raise DataError(f"{path} has the mode {picture.mode}; relative depth of ReDWeb has 8 bits of grey")
            values = np.asarray(picture)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of any kind over damaged files
        raise DataError(f"cannot read the relative depth {path}: {error}") from error
    return np.where(values == UNKNOWN, np.float32(0), (values.astype(np.float32) + 1) / 256)
