# SPDX-License-Identifier: Apache-2.0
"""``mlr demo``: a network in a page of the browser, served to this machine or written for any web server."""

from __future__ import annotations

import signal
import socket
import tempfile
from pathlib import Path

from rich.console import Console

from mlr.demo.folder import write_page
from mlr.demo.runtime import runtime_files
from mlr.demo.server import HOST, PageServer
from mlr.models.depth_model import open_model
from mlr.prediction.export import input_size, require_onnx
from mlr.utils.console import plain


def demo(
    checkpoint: Path,
    out: Path | None = None,
    port: int = 8000,
    size: str | None = None,
    examples: bool = False,
    runtime: Path | None = None,
) -> int:
    """Show the depth of photos in a page of the browser, which runs the network itself: no photo leaves it.

    The network is exported to ONNX and served with the page to this machine alone, until Ctrl-C. With --out a folder is
    written instead, which any web server can host. The page shows depth in colours, metres under the pointer and a
    relief to turn, and saves depth as PNG, npy and ply.

    onnxruntime-web runs the network. It is fetched from the npm registry at the first call, 33 MB, and kept.

    Args:
        checkpoint: a network: best.pt or last.pt of a run, the run's folder (its best.pt), the authors' PNAS_model.pth.
        out: folder to write instead of serving; it must be new or empty.
        port: where the page is served, http://127.0.0.1:PORT; 0 takes a free one.
        size: HxW in pixels of the network's input; by default the size that it was trained at.
        examples: offer built-in scenes, and in a checkout the real frame, on the page.
        runtime: the npm package of onnxruntime-web as a file, where the registry is out of reach.

    Returns:
        The exit code, 0.

    Raises:
        ValueError: a setting or the checkpoint is unusable, or the network cannot be exported.
        OSError: the folder has files, the port is taken, or onnxruntime-web cannot be had.
        ImportError: the export needs extra packages.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {port}")
    if out is None:
        _require_free(port)
    else:
        _require_new(out)
    require_onnx()
    network = open_model(checkpoint, "cpu")
    if network.relative:
        raise ValueError(
            f"{network.path} predicts relative depth, which has no metres for the page to show: "
            "mlr predict --format npy writes its numbers"
        )
    shape = input_size(network, size)
    console = Console(stderr=True)
    plain(console, f"network   {network.model.config['backbone']} of {network.path} at {shape[0]} x {shape[1]}")
    files = runtime_files(runtime)
    with tempfile.TemporaryDirectory(prefix="mlr-demo-") as place:
        folder = out or Path(place) / "page"
        for line in write_page(network, folder, shape, files, examples):
            plain(console, f"compared  {line}")
        if out is None:
            _serve(folder, port, console)
        else:
            plain(console, f"page      {out}: host it on any web server; for the camera, browsers ask for https")
    return 0


def _require_new(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"--out {folder} is there already and never overwritten: give another, or remove it")
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {folder.parent} to write {folder.name} into")


def _require_free(port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            trial.bind((HOST, port))
        except OSError as error:
            raise OSError(f"--port {port}: {error.strerror or error}; give another, or 0 for a free one") from error


def _serve(folder: Path, port: int, console: Console) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    with PageServer(folder, port) as server:
        plain(console, f"page      {server.url} (Ctrl-C ends it)")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            plain(console, "stopped")
