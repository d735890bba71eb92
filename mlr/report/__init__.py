# SPDX-License-Identifier: Apache-2.0
"""What a run looks like: its figures, its page in the browser (report.html) and its page of text (report.md).

Everything is made from the files that a run leaves. Nothing is imported here: the command line needs no figures.
"""
