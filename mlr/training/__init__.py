# SPDX-License-Identifier: Apache-2.0
"""Training: settings, the Lightning module, the folder of a run, its figures and its report.

Nothing is imported here: the command line needs the settings alone, and Lightning takes seconds.
"""
