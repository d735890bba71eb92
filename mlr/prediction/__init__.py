# SPDX-License-Identifier: Apache-2.0
"""Depth of images and videos as files: what ``mlr predict`` reads, runs and writes."""
