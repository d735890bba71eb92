# SPDX-License-Identifier: Apache-2.0
"""The folder of a page that shows a network's depth in the browser; any web server can host it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image

import mlr
from mlr.data.synthetic.rooms import render
from mlr.models.depth_model import TrainedModel
from mlr.prediction.export import export_network
from mlr.utils.files import atomic_replace

#: The page itself: HTML, style and scripts.
PAGE = Path(__file__).parent / "page"

#: The real frame of a checkout, and the notice that travels with it.
FRAME = Path(mlr.__file__).parents[1] / "examples" / "xtion_bookshelf"

#: Built-in scenes that are offered: seed and indices of scenes that no default training has seen.
ROOMS_SEED, ROOMS = 20, (0, 1, 2)
ROOMS_SIZE = (480, 640)


def write_page(
    network: TrainedModel, folder: Path, size: tuple[int, int], runtime: list[Path], examples: bool = False
) -> list[str]:
    """Write the page, the network and what runs it; the folder appears when it is complete.

    Args:
        network: the network, on the CPU.
        folder: is not there yet, or is empty.
        size: (height, width) of the network's input.
        runtime: files of onnxruntime-web.
        examples: offer pictures.

    Returns:
        Lines that compare the exported network with PyTorch's.

    Raises:
        ValueError: the network cannot be exported.
        OSError: the folder cannot be written.
    """
    with atomic_replace(folder) as partial:
        shutil.copytree(PAGE, partial)
        (partial / "runtime").mkdir()
        for file in runtime:
            shutil.copy(file, partial / "runtime")
        compared = export_network(network, partial / "model.onnx", size)
        about = {
            "backbone": network.model.config["backbone"],
            "height": size[0],
            "width": size[1],
            "checkpoint": network.path.name,
            "mlr_version": mlr.__version__,
            "examples": write_examples(partial / "examples") if examples else [],
        }
        (partial / "model.json").write_text(json.dumps(about, indent=1) + "\n")
    return compared


def write_examples(folder: Path) -> list[dict[str, str]]:
    """Write pictures to try: built-in scenes, and in a checkout the real frame with its notice.

    Returns:
        File, title and source of each.
    """
    folder.mkdir()
    examples = []
    for index in ROOMS:
        image, _ = render(ROOMS_SEED, index, *ROOMS_SIZE)
        Image.fromarray(image).save(folder / f"room{index}.png")
        examples.append({"file": f"examples/room{index}.png", "title": f"built-in scene {index + 1}", "notice": ""})
    if FRAME.is_dir():
        shutil.copy(FRAME / "rgb.png", folder / "bookshelf.png")
        shutil.copy(FRAME / "README.md", folder / "bookshelf-NOTICE.txt")
        notice = "examples/bookshelf-NOTICE.txt"
        examples.append({"file": "examples/bookshelf.png", "title": "a real frame", "notice": notice})
    return examples
