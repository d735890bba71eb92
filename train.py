# SPDX-License-Identifier: Apache-2.0
"""Train a monocular depth network: ``python train.py --backbone pnasnet``; ``--help`` lists the flags."""

import sys

from mlr.cli import train_command

if __name__ == "__main__":
    sys.exit(train_command())
