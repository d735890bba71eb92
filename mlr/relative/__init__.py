# SPDX-License-Identifier: Apache-2.0
"""Relative depth in plain PyTorch: order of points, ranking loss, alignment, ratios to neighbours and their fusion."""
