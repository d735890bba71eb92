# SPDX-License-Identifier: Apache-2.0
"""Small helpers that know nothing of depth: atomic files, optional packages, suggestions, sizes."""
