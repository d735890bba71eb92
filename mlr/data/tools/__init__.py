# SPDX-License-Identifier: Apache-2.0
"""Commands about data sets: ``mlr prepare`` and ``mlr check-data``."""
