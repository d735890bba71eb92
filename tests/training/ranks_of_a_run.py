# SPDX-License-Identifier: Apache-2.0
"""Trains as ``train.py`` does, and leaves what every rank ends with. Started by torchrun in tests.

ranks_of_a_run.py FOLDER flags of train.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from mlr.cli import train_command
from mlr.training.module import DepthTraining


def leave(task: DepthTraining) -> None:
    torch.save(task.state_dict(), Path(sys.argv[1]) / f"rank{task.global_rank}.pt")


if __name__ == "__main__":
    DepthTraining.on_train_end = leave
    sys.exit(train_command(sys.argv[2:]))
