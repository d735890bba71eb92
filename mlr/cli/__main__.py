# SPDX-License-Identifier: Apache-2.0
"""``python -m mlr.cli <command>``."""

import sys

from mlr.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
