# SPDX-License-Identifier: Apache-2.0
"""What mlr demo serves, fetches and refuses, without a browser."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import re
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlr.demo.folder
from mlr.cli import main
from mlr.demo import runtime
from mlr.demo.folder import PAGE, write_examples
from mlr.demo.runtime import FILES, runtime_files
from mlr.demo.server import TYPES, PageServer
from mlr.models.checkpoints import save_checkpoint
from mlr.models.depth_model import DepthModel


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    folder = tmp_path / "page"
    (folder / "runtime").mkdir(parents=True)
    (folder / "index.html").write_text("<p>page")
    (folder / "runtime" / "ort.wasm").write_bytes(b"\0asm")
    (folder / "a b.json").write_text("{}")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link").symlink_to(tmp_path)
    with PageServer(folder) as started:
        (folder / "later.txt").write_text("not there when the server started")
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


def ask(server: PageServer, path: str, method: str = "GET", host: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_address[1]}")
    connection.endheaders()
    return connection.getresponse()


def test_files_have_their_types_and_the_page_is_isolated(server: PageServer) -> None:
    for path, kind, content in (
        ("/", "text/html; charset=utf-8", b"<p>page"),
        ("/runtime/ort.wasm?version=1", "application/wasm", b"\0asm"),
        ("/a%20b.json", "application/json", b"{}"),
    ):
        answer = ask(server, path)
        assert (answer.status, answer.headers["Content-Type"], answer.read()) == (200, kind, content)
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    head = ask(server, "/", "HEAD")
    assert (head.status, head.headers["Content-Length"], head.read()) == (200, "7", b"")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/runtime/../../secret.txt", "//secret.txt",
        "/link/secret.txt", "/runtime", "/runtime/", "/later.txt", "/index.html/", "secret.txt", "/etc/passwd", "/%00",
    ],
)  # fmt: skip
def test_other_paths_are_refused(server: PageServer, path: str) -> None:
    answer = ask(server, path)
    assert answer.status == 404
    assert b"secret" not in answer.read().replace(path.encode(), b"")


def test_only_this_machine_may_look(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, "/", host="localhost:1234").status == 200  # a tunnel has another port
    assert ask(server, "/", host="evil.example:8000").status == 403
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, "/", method).status == 501


def test_every_file_of_the_page_has_a_type_and_nothing_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    write_examples(tmp_path / "examples")
    names = [*FILES, "model.onnx", "model.json", *PAGE.iterdir(), *(tmp_path / "examples").iterdir()]
    assert {Path(name).suffix for name in names} <= set(TYPES)
    for path in PAGE.iterdir():
        assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"(?m)^\s*//.*$", "", path.read_text())) == []


def test_an_installed_package_offers_rooms_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlr.demo.folder, "FRAME", tmp_path / "nothing")
    assert [e["title"] for e in write_examples(tmp_path / "e")] == [f"built-in scene {i}" for i in (1, 2, 3)]


# --- onnxruntime-web --------------------------------------------------------------------------------------------------


def package(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package that stands for the pinned one."""
    with tarfile.open(path, "w:gz") as archive:
        for name in FILES:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(runtime, "INTEGRITY", f"sha512-{digest}")
    return path


def test_the_package_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "URL", package(tmp_path / "p.tgz", monkeypatch).as_uri())
    files = runtime_files(cache=tmp_path / "cache")
    assert [file.read_bytes().decode() for file in files[:2]] == list(FILES)
    assert "Microsoft" in files[2].read_text()
    (tmp_path / "p.tgz").unlink()
    assert runtime_files(cache=tmp_path / "cache") == files


def test_another_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = package(tmp_path / "p.tgz", monkeypatch)
    other.write_bytes(other.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"p\.tgz is not onnxruntime-web .*: its sha512 is another"):
        runtime_files(other, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_offline_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setattr(runtime, "URL", f"http://127.0.0.1:{nobody.getsockname()[1]}/package.tgz")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(OSError, match=r"package\.tgz \(33 MB\) cannot be fetched: .* give it with --runtime"):
            runtime_files(cache=tmp_path)


# --- the command ------------------------------------------------------------------------------------------------------


def test_relative_depth_is_refused(network: DepthModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra export")
    path = save_checkpoint(tmp_path / "best.pt", network, config={"size": "64x96", "task": "relative"})
    assert main(["demo", str(path), "--out", str(tmp_path / "page")]) == 1
    assert "best.pt predicts relative depth, which has no metres for the page" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_wrong_settings(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra export")

    def error(*arguments: object) -> str:
        assert main(["demo", *map(str, arguments)]) == 1
        return capsys.readouterr().err

    assert "best.pt is there already and never overwritten" in error(checkpoint, "--out", checkpoint)
    assert f"{tmp_path} is there already" in error(checkpoint, "--out", tmp_path)
    assert "there is no folder" in error(checkpoint, "--out", tmp_path / "no" / "page")
    assert "--port must be 0 to 65535, got 70000" in error(checkpoint, "--port", 70000)
    assert "there is no checkpoint" in error(tmp_path / "no.pt")
    assert "--size must be at least 32x32" in error(checkpoint, "--size", "8x8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}: Address already in use; give another, or 0 for a free one" in error(
            checkpoint, "--port", port
        )
    (tmp_path / "other.tgz").write_bytes(b"another")
    assert "is not onnxruntime-web" in error(
        checkpoint, "--out", tmp_path / "page", "--runtime", tmp_path / "other.tgz"
    )
    assert not (tmp_path / "page").exists()
