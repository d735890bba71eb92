# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk, one module each, and the registry that opens them by name."""
