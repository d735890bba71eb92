# SPDX-License-Identifier: Apache-2.0
"""The command lines ``mlr <command>`` and ``python train.py``."""

from mlr.cli.commands import main, train_command

__all__ = ["main", "train_command"]
