# SPDX-License-Identifier: Apache-2.0
"""``mlr demo``: a network in a page of the browser."""
