# SPDX-License-Identifier: Apache-2.0
"""Relative depth: the order of points, ratios of depth to neighbours, and their fusion with ordinary depth."""
