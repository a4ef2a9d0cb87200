# SPDX-License-Identifier: Apache-2.0
"""Where the learned parts come from: a simulator of moving scenes and detectors, recipes, export to what ships."""
