# SPDX-License-Identifier: Apache-2.0
"""Which parts of the CT may move by themselves? Label volumes, each brought onto one grid in the CT under its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from fluoronav.case.volumes import Grid, is_volume_file, read_grid
from fluoronav.imaging.notes import Notes
from registration.errors import BadInput
from registration.geometry import Array, Volume
from registration.segmentation import REST, Segmentation

GRID_MM = 1.5  # of the labels that are kept: a body is cut out softly, some 16 mm beyond its label
LEAST_CM3 = 1.0  # a body with less shows nothing of its own
_NAME = re.compile(r"[a-z][a-z0-9 _-]{0,31}")
_TAKEN = ("auto", "one", REST)
_HOW = "NAME=FILE or NAME=FILE:3,4, such as spine=vertebrae.nii.gz"


def read_bodies(given: Sequence[str], ct: Volume | None, notes: Notes) -> Segmentation:
    """The bodies that `NAME=FILE` and `NAME=FILE:LABELS` name, as labels on a grid in the CT. Raises BadInput."""
    if ct is None:
        raise BadInput("--bodies", got="no CT", expected="the CT whose parts they are", remedy="add --ct")
    coarse = np.maximum(ct.spacing_mm, GRID_MM)
    shape, affine = _grid(ct, coarse)
    labels = np.zeros(shape, np.float32)
    names: list[str] = []
    for text in given:
        name, path, values = _parsed(text, names)
        names.append(name)
        inside = _placed(_mask(path, name, values, notes), affine, shape)
        if not inside.any():
            raise BadInput(f"body {name}", got=f"{path.name}, wholly outside of the CT", expected="labels of this CT",
                           remedy="check that they belong to this CT")
        overlap = int((inside & (labels > 0)).sum())
        if overlap:
            notes.warn(f"body {name}: {overlap / inside.sum():.1%} of it is in an earlier body, which keeps it")
        labels[inside & (labels == 0)] = len(names)
        cm3 = float((labels == len(names)).sum() * np.prod(coarse)) / 1000
        if cm3 < LEAST_CM3:
            raise BadInput(f"body {name}", got=f"{cm3:.2g} cm3 in the CT", expected=f"{LEAST_CM3:g} cm3 or more",
                           remedy="join it with what moves along with it")
        notes.read(f"body {name}: {cm3:.0f} cm3, may move by itself")
    return Segmentation(tuple(names), Volume(labels, affine))


def _parsed(text: str, taken: Sequence[str]) -> tuple[str, Path, tuple[int, ...]]:
    name, equals, file = text.partition("=")
    name = name.strip().lower()
    if not equals or not file or not _NAME.fullmatch(name):
        raise BadInput("--bodies", got=text, expected=_HOW, remedy="give the body a name of letters")
    if name in _TAKEN or name in taken:
        raise BadInput("--bodies", got=f"the name {name}" + (" twice" if name in taken else ""),
                       expected="a name of its own, none of " + ", ".join(_TAKEN), remedy="choose another name")
    path, colon, numbers = file.rpartition(":")
    if not colon or not re.fullmatch(r"\d+(,\d+)*", numbers):
        return name, Path(file), ()
    return name, Path(path), tuple(int(n) for n in numbers.split(","))


def _mask(path: Path, name: str, values: tuple[int, ...], notes: Notes) -> Grid:
    if not path.is_file() or not is_volume_file(path):
        raise BadInput(f"body {name}", got=f"{path.name}: " + ("another kind of file" if path.exists() else "no file"),
                       expected="a label volume (NIfTI, NRRD, MHA)", remedy="check the path")
    grid = read_grid(path, f"body {name}", notes)
    there = np.unique(grid.data)
    if not np.array_equal(there, np.round(there)) or not (there > 0).any():
        raise BadInput(f"body {name}", got="values that are not whole numbers" if (there > 0).any() else "only zeros",
                       expected="a label volume", remedy="give labels, not an image")
    missing = sorted(set(values) - {int(v) for v in there})
    if missing or 0 in values:
        known = ", ".join(f"{v:g}" for v in there[there > 0][:20])
        raise BadInput(f"body {name}", got=f"label {', '.join(map(str, missing or [0]))}", expected=f"of {known}",
                       remedy="name labels that the file holds")
    return Grid(np.isin(grid.data, values) if values else grid.data > 0, grid.patient_from_index)


def _grid(ct: Volume, spacing_mm: Array) -> tuple[tuple[int, int, int], Array]:
    """Shape [k, j, i] and affine of a grid over the CT's box, along its axes."""
    n = np.ceil(np.array(ct.data.shape[::-1]) * ct.spacing_mm / spacing_mm).astype(int)
    ratio = spacing_mm / ct.spacing_mm
    scale = np.diag([*ratio, 1.0])
    scale[:3, 3] = (ratio - 1) / 2
    return (int(n[2]), int(n[1]), int(n[0])), ct.patient_from_index @ scale


def _placed(mask: Grid, affine: Array, shape: tuple[int, int, int]) -> Array:
    """A mask at the points of a grid: its nearest voxel, nothing outside of it."""
    here = np.linalg.inv(mask.patient_from_index) @ affine
    return np.asarray(ndimage.affine_transform(mask.data.astype(np.uint8), here[2::-1, 2::-1], here[2::-1, 3],
                                               output_shape=shape, order=0, mode="constant", cval=0)) > 0
