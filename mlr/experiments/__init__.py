# SPDX-License-Identifier: Apache-2.0
"""Experiments: plans of many training runs, their results, statistics, tables and figures."""
