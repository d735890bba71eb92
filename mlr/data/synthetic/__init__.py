# SPDX-License-Identifier: Apache-2.0
"""Built-in scenes: rooms, their shapes and surfaces, rendered with exact depth."""
