# SPDX-License-Identifier: Apache-2.0
"""Damaged, foreign and malicious files, given to every command that reads them."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torture.malformed import CASES, WHOLE, damaged
from torture.runs import TINY, load, reference
from torture.trials import Campaign, Counts, Trial, check, command

KIND = "rebalancing"
#: What a network is scored on.
SCENES = ("--data=rooms", "--data-options=length=2,height=48,width=64")
#: Files of a run, and the commands that read them.
RUN_FILES = ("config.yaml", "run.json", "resume.ckpt", "last.pt", "best.pt", "metrics.csv", "balancing.csv")


def prepare(shared: Path) -> None:
    """A run."""
    load()
    reference(KIND, shared / "run")


def trial(given: Trial) -> Counts:
    """The faults of the corpus one by one, each time with another command; every third trial damages at random."""
    commands = list(DATA_COMMANDS)
    third, place = divmod(given.number, 3)
    if place < 2:
        turn, index = divmod(2 * third + place, len(CASES))
        return fault(given, index, commands[(index + turn) % len(commands)])
    return (data_at_random, checkpoint_bytes, checkpoint_contents, run_file, settings_file)[third % 5](given)


def checked(what: str, *words: object) -> int:
    """Call a command; fail unless it ends as it should and says something where it fails."""
    try:
        code, said = command(*words)
    except Exception as error:
        raise AssertionError(f"{what}: {' '.join(map(str, words))}: {type(error).__name__}: {error}") from error
    check(code in (0, 1, 2) and "Traceback" not in said, f"{what}: exit code {code}: {said}")
    check(code == 0 or len(said.strip()) > 20, f"{what}: exit code {code}, and it says {said!r}")
    return code


# --- data sets --------------------------------------------------------------------------------------------------------

DATA_COMMANDS: dict[str, Callable[[str, Path, Path, Path], tuple[object, ...]]] = {
    "check-data": lambda name, root, run, out: ("check-data", f"{name}:{root}", "--workers=0"),
    "prepare": lambda name, root, run, out: (
        "prepare", f"{name}:{root}", f"--out={out / 'x.h5'}", "--workers=0", "--holes=nearest"),
    "evaluate": lambda name, root, run, out: (
        "evaluate", run, f"--data={name}", f"--root={root}", "--split=train", f"--out={out / 'scores'}"),
    "predict": lambda name, root, run, out: (
        "predict", run, f"--data={name}", f"--root={root}", "--split=train", f"--out={out / 'depth'}"),
    "train": lambda name, root, run, out: (
        "train", *TINY, "--epochs=1", "--losses=D/0", f"--data={name}", f"--root={root}", f"--out={out / 'new'}"),
}  # fmt: skip


def fault(given: Trial, index: int, name: str) -> Counts:
    """A fault of the corpus."""
    case = CASES[index]
    (given.folder / "data").mkdir()
    root = case.write(given.folder / "data")
    words = DATA_COMMANDS[name](case.dataset, root, given.shared / "run", given.folder)
    code = checked(f"{case.dataset}: {case.fault}", *words)
    return {"faults of data sets": 1, "refused": code != 0}


def data_at_random(given: Trial) -> Counts:
    """A whole data set with a damaged file."""
    name = str(given.random.choice(sorted(WHOLE)))
    which = str(given.random.choice(list(DATA_COMMANDS)))
    what, root, _ = next(damaged(name, given.folder / "data", 1, seed=int(given.random.integers(2**31))))
    code = checked(f"{name}: {what}", *DATA_COMMANDS[which](name, root, given.shared / "run", given.folder))
    return {"data sets damaged at random": 1, "refused": code != 0}


# --- checkpoints ------------------------------------------------------------------------------------------------------


def checkpoint_words(given: Trial, file: Path) -> tuple[object, ...]:
    """A command that reads a checkpoint."""
    pictures = given.folder / "pictures"
    pictures.mkdir()
    shutil.copy(Path(__file__).parents[2] / "examples/xtion_bookshelf/rgb.png", pictures / "1.png")
    choices: list[tuple[object, ...]] = [
        ("predict", file, pictures, f"--out={given.folder / 'depth'}", "--size=32x48"),
        ("evaluate", file, *SCENES),
        ("train", *TINY, "--epochs=1", "--losses=D/0", f"--pretrained={file}", f"--out={given.folder / 'new'}"),
    ]
    return choices[int(given.random.integers(len(choices)))]


def bytes_damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Cut off, overwritten or with a stretch left out."""
    place, length = int(random.integers(len(content) + 1)), int(random.integers(1, 200))
    kind = random.integers(3)
    if kind == 0:
        return content[:place]
    return content[:place] + (random.bytes(length) if kind == 1 else b"") + content[place + length :]


def checkpoint_bytes(given: Trial) -> Counts:
    """A checkpoint with damaged bytes."""
    file = given.folder / "x.pt"
    file.write_bytes(bytes_damaged((given.shared / "run/last.pt").read_bytes(), given.random))
    code = checked("bytes of a checkpoint", *checkpoint_words(given, file))
    return {"checkpoints with damaged bytes": 1, "refused": code != 0}


#: What a value of a checkpoint or a table is replaced by.
WRONG: tuple[Callable[[], Any], ...] = (
    lambda: None, lambda: 3, lambda: -1, lambda: 1e308, lambda: float("nan"), lambda: "x" * 1000, lambda: "[bold]",
    list, dict,
    lambda: [1, "a"], lambda: {"a": {"b": {}}}, lambda: True, lambda: torch.zeros(0), lambda: torch.ones(3, 3),
    lambda: torch.full((2,), torch.nan), lambda: torch.zeros(1).expand(2**40), lambda: 10**12, lambda: "resnet50",
    lambda: torch.zeros(2, dtype=torch.complex64), lambda: [10**9, 10**9], lambda: "vit_giant_patch14_dinov2",
)  # fmt: skip


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in nested dictionaries and lists."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((*here, key), *places(value[key], (*here, key)))]


def changed(content: Any, random: np.random.Generator) -> tuple[Any, str]:
    """A copy with a value replaced or taken away, and what was done."""
    content = copy.copy(content) if not isinstance(content, dict | list) else copy.deepcopy(content)
    found = places(content)
    if not found:
        return WRONG[int(random.integers(len(WRONG)))](), "the whole"
    # shallow places are few and matter most
    depth = int(random.integers(1, 1 + max(map(len, found))))
    chosen = [place for place in found if len(place) == depth]
    place = chosen[int(random.integers(len(chosen)))]
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    if random.random() < 0.25:
        del holder[place[-1]]
        return content, f"without {place}"
    wrong = WRONG[int(random.integers(len(WRONG)))]()
    holder[place[-1]] = wrong
    return content, f"{place} is {str(wrong)[:60]}"


def checkpoint_contents(given: Trial) -> Counts:
    """A checkpoint whose contents are changed."""
    content, what = changed(torch.load(given.shared / "run/last.pt", weights_only=True), given.random)
    torch.save(content, given.folder / "x.pt")
    code = checked(f"checkpoint: {what}", *checkpoint_words(given, given.folder / "x.pt"))
    return {"checkpoints with changed contents": 1, "refused": code != 0}


# --- runs -------------------------------------------------------------------------------------------------------------


def run_file(given: Trial) -> Counts:
    """A run with a damaged or special file."""
    run = Path(shutil.copytree(given.shared / "run", given.folder / "run"))
    file = run / str(given.random.choice(RUN_FILES))
    kind, what = given.random.random(), file.name
    if kind < 0.1:
        file.unlink()
        os.mkfifo(file)
        what += " is a pipe"
    elif kind < 0.15:
        file.unlink()
        file.mkdir()
        what += " is a folder"
    elif kind < 0.5 and file.suffix in (".pt", ".ckpt", ".json"):
        read = (lambda: json.loads(file.read_text())) if file.suffix == ".json" else (
            lambda: torch.load(file, weights_only=True))  # fmt: skip
        content, done = changed(read(), given.random)
        what += f": {done}"
        if file.suffix == ".json":
            file.write_text(json.dumps(content, default=str))
        else:
            torch.save(content, file)
    else:
        file.write_bytes(bytes_damaged(file.read_bytes(), given.random))
        what += " with damaged bytes"
    choices: list[tuple[object, ...]] = [
        ("report", run), ("train", "--resume", run, "--epochs=3"), ("evaluate", run, *SCENES),
    ]  # fmt: skip
    words = choices[int(given.random.integers(len(choices)))]
    code = checked(what, *words)
    return {"damaged runs": 1, "refused": code != 0}


def settings_file(given: Trial) -> Counts:
    """``--config`` with a file that is damaged, changed or made to fill the memory."""
    text = (given.shared / "run/config.yaml").read_text()
    random = given.random
    bombs = (
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b]\n",
        "{" * 10_000, "size: " + "[" * 50_000, "epochs: !!python/object/apply:os.system ['true']",
        "epochs: " + "9" * 9999,
        "? [a, b]\n: 1\n", "<<: *x\n", "epochs: 1\nepochs: 2\n", "\ufeff", "size: " + "x" * 60_000,
        "losses: " + "D/0+" * 9000,
    )  # fmt: skip
    bomb = bombs[int(random.integers(len(bombs)))].encode()
    content = bomb if random.random() < 0.5 else bytes_damaged(text.encode(), random)
    file = given.folder / "x.yaml"
    file.write_bytes(content)
    words = ("train", f"--config={file}", *TINY, "--epochs=1", "--losses=D/0", f"--out={given.folder / 'new'}")
    code = checked(f"settings {content[:60]!r}", *words)
    return {"settings files": 1, "refused": code != 0}


CAMPAIGN = Campaign(
    "files",
    f"{len(CASES)} faults of data sets, each with a command that reads data, and data sets, checkpoints, runs and "
    "settings damaged at random. Each ends within two minutes and 2 GiB, in success or in a sentence.",
    trial,
    share=7,
    prepare=prepare,
)
