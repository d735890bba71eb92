# SPDX-License-Identifier: Apache-2.0
"""``mlr export``: a trained network as ONNX or torch.export file, compared with PyTorch before it appears."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from mlr._version import __version__
from mlr.models.depth_model import DepthModel, TrainedModel, open_model
from mlr.utils.files import atomic_write
from mlr.utils.optional import import_or_explain
from mlr.utils.sizes import MIN_SIDE, parse_size

#: Largest difference of the exported network's depth from PyTorch's, as a share of the range of the depth (so that a
#: network that sees nothing in the image does not pass) and of its size (rounding of float32).
RANGE_SHARE, DEPTH_SHARE = 1e-4, 2e-6

#: Name of the metadata inside a .pt2 file.
METADATA_FILE = "mlr.json"

#: Bytes that one ONNX file holds: protobuf counts in 31 bits.
ONNX_LIMIT = 2**31 - 2**20

Shapes = tuple[dict[int, Any]] | None
Runner = Callable[[Tensor], Tensor]


def export(
    checkpoint: Path, out: Path, size: str | None = None, dynamic_batch: bool = False, opset: int | None = None
) -> int:
    """Export a trained network to ONNX or to torch.export's format, and compare it with PyTorch.

    The network takes "image", [B, 3, H, W] float32, RGB in [0, 1], and gives "depth", [B, 1, H, W] float32 metres; the
    normalisation of the colours is inside. On random images its depth must agree with PyTorch's to 0.01 % of the range
    of the depth, otherwise no file is left.

    Args:
        checkpoint: a network: best.pt or last.pt of a run, the run's folder (its best.pt), the authors' PNAS_model.pth.
        out: the file to write; .onnx or .pt2 says which format. An earlier file is never overwritten.
        size: HxW in pixels of the network's input; by default the size that it was trained at.
        dynamic_batch: accept any number of images at once instead of one.
        opset: version of ONNX's operators; by default PyTorch's choice.

    Returns:
        The exit code, 0.

    Raises:
        ValueError: a setting or the checkpoint is unusable, or the network cannot be exported or gives another depth.
        OSError: the file exists or cannot be written.
        ImportError: ONNX needs extra packages.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    out = Path(out)
    if out.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"--out must end in .onnx or .pt2 (torch.export), got {out}")
    if out.exists():
        raise FileExistsError(f"{out} exists; give another name with --out, or remove it")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into")
    if opset is not None and out.suffix != ".onnx":
        raise ValueError(f"--opset is for ONNX; {out} is torch.export's format")
    if out.suffix == ".onnx":
        require_onnx()
    network = open_model(checkpoint, "cpu")
    height, width = input_size(network, size)
    metadata = _metadata(network, height, width, dynamic_batch)
    described = ", ".join(f"{name} {value}" for name, value in metadata.items())
    console.print(f"exporting {network.path}: {described}")
    for line in export_network(network, out, (height, width), dynamic_batch, opset):
        console.print(line)
    console.print(f"{out}, {out.stat().st_size / 1e6:,.1f} MB")
    return 0


def require_onnx() -> None:
    """See that the packages are there that write and run ONNX files.

    Raises:
        ImportError: one is not installed; the message says how to install it.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        import_or_explain(module, "export", "ONNX files")


def input_size(network: TrainedModel, text: str | None) -> tuple[int, int]:
    """Height and width at which a network is exported: those of ``--size HxW``, or those of its training.

    Raises:
        ValueError: the text has another form, or there is none and the checkpoint names no size.
    """
    size = network.checkpoint.size if text is None else parse_size(text, MIN_SIDE)
    if size is None:
        raise ValueError(f"{network.path} does not say at which size the network was trained: give --size HxW")
    return size


def export_network(
    network: TrainedModel, out: Path, size: tuple[int, int], dynamic_batch: bool = False, opset: int | None = None
) -> list[str]:
    """Write a network to an ONNX or .pt2 file, which appears once its depth has been compared with PyTorch's.

    Args:
        network: the network, on the CPU.
        out: the file; its suffix says which format.
        size: (height, width) of its input.
        dynamic_batch: accept any number of images at once instead of one.
        opset: version of ONNX's operators; by default PyTorch's choice.

    Returns:
        The lines of :func:`compare`.

    Raises:
        ValueError: the network cannot be exported or gives another depth.
        OSError: the file cannot be written.
    """
    if out.suffix == ".onnx":
        _require_small(network.model)
    write, load = (_write_onnx, _load_onnx) if out.suffix == ".onnx" else (_write_pt2, _load_pt2)
    metadata = _metadata(network, *size, dynamic_batch)
    with atomic_write(out) as partial:
        example = torch.rand(2 if dynamic_batch else 1, 3, *size)
        shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
        try:
            write(partial, network.model, example, shapes, opset, metadata)
        except OSError:
            raise
        except Exception as error:  # the exporters' errors have no common base
            raise ValueError(f"this network cannot be exported as {out.suffix}: {_first_line(error)}") from error
        if opset and (got := _opset(partial)) != opset:
            raise ValueError(f"--opset {opset}: PyTorch could write opset {got} only; ask for that, or for none")
        return compare(network.model, load(partial), size, (1, 3) if dynamic_batch else (1, 1))


@torch.no_grad()
def compare(model: Runner, exported: Runner, size: tuple[int, int], batches: tuple[int, ...]) -> list[str]:
    """Compare an exported network with the original on random images, one batch of each size.

    Args:
        model: the original, from [B, 3, H, W] in [0, 1] to depth [B, 1, H, W].
        exported: the exported one.
        size: (height, width) of the images.
        batches: numbers of images.

    Returns:
        A line for each batch: largest difference, tolerance.

    Raises:
        ValueError: a difference is beyond its tolerance, which is a share of the depth's range and one of its size.
    """
    generator = torch.Generator().manual_seed(0)
    lines = []
    for count in batches:
        image = torch.rand(count, 3, *size, generator=generator)
        wanted, got = model(image), exported(image)
        if got.shape != wanted.shape:
            raise ValueError(
                f"the exported network gives depth {list(got.shape)} where PyTorch gives {list(wanted.shape)}: no file "
                "was written"
            )
        difference = (got - wanted).abs()
        largest, relative = difference.max().item(), (difference / wanted.abs().clamp(min=1e-6)).max().item()
        tolerance = (RANGE_SHARE * (wanted.max() - wanted.min()) + DEPTH_SHARE * wanted.abs().max()).item()
        line = (
            f"{count} x {size[0]} x {size[1]}: depth differs from PyTorch's by {largest:.2g} m at most "
            f"({relative:.2g} of the depth), tolerance {tolerance:.2g} m"
        )
        if not largest <= tolerance:  # NaN is no agreement
            raise ValueError(f"{line}: the exported network is wrong and no file was written; another --opset or "
                             "PyTorch version may help")  # fmt: skip
        lines.append(line)
    return lines


def _metadata(network: TrainedModel, height: int, width: int, dynamic_batch: bool) -> dict[str, str]:
    """What a user of the file has to know, as texts."""
    return {
        "backbone": network.model.config["backbone"],
        "decoder": network.model.config.get("decoder", "paper"),
        "input": f"image [{'batch' if dynamic_batch else 1}, 3, {height}, {width}] float32, RGB in [0, 1]",
        "normalization": "inside the network",
        "output": "depth, not clamped",
        "depth_unit": "m",
        "mlr_version": __version__,
    }


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# --- ONNX -------------------------------------------------------------------------------------------------------------


def _require_small(model: DepthModel) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > ONNX_LIMIT:
        raise ValueError(f"the weights have {size / 1e9:.1f} GB and one ONNX file holds 2 GB: export to .pt2")


def _write_onnx(
    path: Path, model: DepthModel, example: Tensor, shapes: Shapes, opset: int | None, metadata: dict[str, str]
) -> None:
    logging.getLogger("onnxscript").setLevel(logging.CRITICAL)  # prints tracebacks for opsets that are refused later
    program = torch.onnx.export(
        model, (example,), dynamo=True, dynamic_shapes=shapes, opset_version=opset, verbose=False,
        input_names=["image"], output_names=["depth"],
    )  # fmt: skip
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> Runner:
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["depth"], {"image": image.numpy()})[0])


def _opset(path: Path) -> int:
    import onnx

    return next(entry.version for entry in onnx.load(path).opset_import if entry.domain == "")


# --- torch.export -----------------------------------------------------------------------------------------------------


def _write_pt2(
    path: Path, model: DepthModel, example: Tensor, shapes: Shapes, opset: int | None, metadata: dict[str, str]
) -> None:
    program = torch.export.export(model, (example,), dynamic_shapes=shapes)
    # torch's own writer insists on the name .pt2 and reports a full disk as an error of the network
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(metadata)})
    path.write_bytes(buffer.getbuffer())


def _load_pt2(path: Path) -> Runner:
    with path.open("rb") as file:
        return torch.export.load(file).module()
