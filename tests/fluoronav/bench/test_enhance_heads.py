# SPDX-License-Identifier: Apache-2.0
"""Measures of the heads: what they say of a flat field and of known motion."""

from __future__ import annotations

import numpy as np

from fluoronav.bench import enhance_contrast, enhance_heads


def test_contrast_raises_no_lines_in_a_flat_field() -> None:
    for figure in enhance_contrast.false_lines().values():
        plain = float(figure.note.split("without contrast ")[1].split(";")[0])
        assert figure.value is not None and figure.value < plain + 0.02  # one field of 256 x 256, eight frames


def test_the_swaying_scene_lies_where_its_path_says() -> None:
    frames, path = enhance_heads.swaying(2, side=128, count=12)
    assert np.array_equal(path[0], [0, 0]) and np.abs(path).max() > 2
    assert len(frames) == 12 and frames[3].pixels.shape == (128, 128)
