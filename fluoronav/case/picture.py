# SPDX-License-Identifier: Apache-2.0
"""How does a case look? Three planes through the target with vessels, path and target, and the vessels as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fluoronav.files import whole_or_nothing
from registration.errors import BadInput
from registration.geometry import Array, Float64, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fluoronav.case.case import Case

AXES = "LPS"
SEEN = ((0, 2, "seen from the front"), (1, 2, "seen from the left"), (0, 1, "seen from the feet"))
NAMES = {(0, 2): "coronal", (1, 2): "sagittal", (0, 1): "axial"}
NEAR_MM = 5.0  # lines this near to a plane are drawn bright in it, the rest of them faint
COLORS = {"vessels": "#3fd0ff", "centerline": "#56e0b0", "path": "#ffb347", "target": "#ff4fd8", "implant": "#d8dde3"}
PAGE, INK = "#101418", "#c8d0d8"
POINTS_MAX = 20_000  # of a surface in one projection; more look the same
SAMPLES = 420  # along the longer edge of a plane


def draw_case(case: Case, png: str | Path) -> None:
    """Write the picture of a case as PNG: three planes through the target (of the CT, else the MR) with cuts of
    the vessels, and three projections of everything that has a shape, axes in L, P, S mm. Raises BadInput."""
    import matplotlib

    if Path(png).suffix.lower() != ".png":
        raise BadInput(f"picture {png}", got=f"suffix {Path(png).suffix or '(none)'}", expected=".png",
                       remedy="name it so")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    volume = case.volume_hu if case.volume_hu is not None else case.mr
    shaped = bool(case.surfaces or case.centerlines or case.implant is not None or case.path_mm is not None)
    rows = int(volume is not None) + int(shaped or volume is None)
    with plt.rc_context({"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
                         "axes.edgecolor": "#3a444e", "font.size": 9, "savefig.facecolor": PAGE}):
        figure, grid = plt.subplots(rows, 3, figsize=(15, 5.4 * rows), squeeze=False, layout="constrained")
        figure.patch.set_facecolor(PAGE)
        if volume is not None:
            for axes, (across, up, title) in zip(grid[0], SEEN, strict=True):
                _plane(axes, case, volume, (across, up), title)
        if shaped or volume is None:
            for axes, (across, up, title) in zip(grid[-1], SEEN, strict=True):
                _projection(axes, case, (across, up), title)
        figure.suptitle(_title(case), fontsize=11)
        _legend(figure, case)
        try:
            with whole_or_nothing(Path(png)) as part:
                figure.savefig(part, dpi=100)
        except OSError as error:
            raise BadInput(f"picture {png}", got=error.strerror or str(error), expected="a place to write to",
                           remedy="choose another place") from error
        finally:
            plt.close(figure)


def _legend(figure: Any, case: Case) -> None:
    """The colors of what is there."""
    from matplotlib.lines import Line2D

    there = {"vessels": bool(case.surfaces), "centerline": bool(case.centerlines), "path": case.path_mm is not None,
             "target": True, "implant": case.implant is not None}
    marks = [Line2D([], [], color=COLORS[name], lw=2, label=name) for name in COLORS if there[name]]
    figure.legend(handles=marks, loc="upper right", ncols=len(marks), frameon=False, labelcolor=INK)


def _title(case: Case) -> str:
    kind = ", ".join(case.contents)
    x, y, z = case.target_mm
    return (f"{case.name}   {kind}   target ({x:.1f}, {y:.1f}, {z:.1f}) mm, "
            f"{'assumed' if case.target_assumed else 'given'}   research use only")


def _plane(axes: Axes, case: Case, volume: Volume, shown: tuple[int, int], title: str) -> None:
    """One plane of the volume through the target, resampled in the patient frame."""
    across, up = shown
    through = 3 - across - up
    picture, extent = plane_of(volume, case.target_mm, shown)
    low, high = (-200, 400) if case.volume_hu is not None else np.percentile(volume.data, [1, 99])
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, extent=extent, origin="lower", interpolation="bilinear")
    for name, mesh in _meshes(case):
        color = COLORS["implant" if name == "implant" else "vessels"]
        cut = _cut(mesh, through, float(case.target_mm[through]))
        if len(cut):
            _segments(axes, cut[:, :, [across, up]], color, 1.2)
    for line in _lines(case):
        _line_at_plane(axes, line, case.target_mm, shown, COLORS["centerline"])
    if case.path_mm is not None:
        _line_at_plane(axes, case.path_mm, case.target_mm, shown, COLORS["path"])
    _target(axes, case, shown)
    axes.set_xlim(*extent[:2])
    axes.set_ylim(*extent[2:])
    _finish(axes, shown, f"{NAMES[shown]}, {title}, {AXES[through]} = {case.target_mm[through]:.1f} mm")


def plane_of(volume: Volume, through_mm: Float64, shown: tuple[int, int],
             ) -> tuple[Array, tuple[float, float, float, float]]:
    """Values (rows, columns) of the plane through a point spanned by two patient axes, and its extent in mm
    (left, right, bottom, top); NaN outside of the volume."""
    from scipy import ndimage

    across, up = shown
    corners = volume.corners_mm
    low, high = corners.min(axis=0), corners.max(axis=0)
    step = max(float((high - low)[[across, up]].max()) / SAMPLES, float(volume.spacing_mm.min()))
    a = np.arange(low[across] + step / 2, high[across], step)
    b = np.arange(low[up] + step / 2, high[up], step)
    points = np.empty((len(b), len(a), 3))
    points[:] = through_mm
    points[..., across], points[..., up] = a[None, :], b[:, None]
    index_from_patient = np.linalg.inv(volume.patient_from_index)
    ijk = points @ index_from_patient[:3, :3].T + index_from_patient[:3, 3]
    values = ndimage.map_coordinates(volume.data, [ijk[..., 2], ijk[..., 1], ijk[..., 0]], order=1, cval=np.nan)
    return values, (a[0] - step / 2, a[-1] + step / 2, b[0] - step / 2, b[-1] + step / 2)


def _projection(axes: Axes, case: Case, shown: tuple[int, int], title: str) -> None:
    """Everything with a shape, looked at along one patient axis; nearer parts of surfaces brighter."""
    across, up = shown
    axes.set_facecolor(PAGE)
    for name, mesh in _meshes(case):
        color = COLORS["implant" if name == "implant" else "vessels"]
        _shaded(axes, mesh.vertices, mesh.faces, shown, color)
    for line in _lines(case):
        axes.plot(line[:, across], line[:, up], color=COLORS["centerline"], lw=1.3)
    if case.path_mm is not None:
        axes.plot(case.path_mm[:, across], case.path_mm[:, up], color=COLORS["path"], lw=1.8)
    _target(axes, case, shown)
    axes.set_aspect("equal")
    axes.margins(0.06)
    _finish(axes, shown, f"{title}, projection")


def _shaded(axes: Axes, vertices: Float64, faces: Array, shown: tuple[int, int], color: str) -> None:
    """Triangles painted from far to near, lit from the viewer."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb

    across, up = shown
    toward = _toward(shown)
    if len(faces) > 3 * POINTS_MAX:
        faces = faces[:: len(faces) // (3 * POINTS_MAX) + 1]
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    size = np.linalg.norm(normal, axis=1)
    facing = np.abs(normal @ toward) / np.where(size > 0, size, 1)
    order = np.argsort(corners.mean(axis=1) @ toward)
    paint = np.empty((len(faces), 4))
    paint[:, :3] = np.array(to_rgb(color)) * (0.25 + 0.6 * facing[:, None])
    paint[:, 3] = 0.45
    axes.add_collection(PolyCollection(list(corners[order][:, :, [across, up]]), facecolors=paint[order],
                                       edgecolors="none", antialiaseds=False))


def _toward(shown: tuple[int, int]) -> Float64:
    """The direction from which the picture is seen: front (-P), left (+L), feet (-S)."""
    return {(0, 2): np.array([0.0, -1, 0]), (1, 2): np.array([1.0, 0, 0]), (0, 1): np.array([0.0, 0, -1])}[shown]


def _finish(axes: Axes, shown: tuple[int, int], title: str) -> None:
    """Labels in mm; P grows downward where the picture is axial: seen from the feet."""
    across, up = shown
    if shown == (0, 1):
        axes.invert_yaxis()
    axes.set_xlabel(f"{AXES[across]} [mm]")
    axes.set_ylabel(f"{AXES[up]} [mm]")
    axes.set_title(title, fontsize=9)


def _line_at_plane(axes: Axes, points: Float64, at_mm: Float64, shown: tuple[int, int], color: str) -> None:
    """A line seen along the normal of a plane: faint, and bright where it is near the plane."""
    across, up = shown
    axes.plot(points[:, across], points[:, up], color=color, lw=0.7, alpha=0.35)
    through = 3 - across - up
    near = np.where(np.abs(points[:, [through]] - at_mm[through]) < NEAR_MM, points, np.nan)
    axes.plot(near[:, across], near[:, up], color=color, lw=1.6)


def _target(axes: Axes, case: Case, shown: tuple[int, int]) -> None:
    across, up = shown
    style: dict[str, Any] = {"marker": "o" if case.target_assumed else "P", "ms": 9, "mew": 1.4}
    axes.plot(case.target_mm[across], case.target_mm[up], ls="none", mfc="none", mec=COLORS["target"], **style)


def _meshes(case: Case) -> Iterator[tuple[str, Any]]:
    yield from case.surfaces.items()
    if case.implant is not None:
        yield "implant", case.implant


def _lines(case: Case) -> Iterator[Float64]:
    for lines in case.centerlines.values():
        for line in lines.lines:
            yield lines.points[line]


def _cut(mesh: Any, axis: int, at_mm: float) -> Float64:
    """Where a plane across a patient axis cuts a mesh: segments (n, 2, 3)."""
    corners = mesh.vertices[mesh.faces]
    side = corners[:, :, axis] - at_mm
    crossing = (side.min(axis=1) < 0) & (side.max(axis=1) > 0)
    corners, side = corners[crossing], side[crossing]
    if not len(corners):
        return np.zeros((0, 2, 3))
    lone = np.argmax((side > 0) == ((side > 0).sum(axis=1) == 1)[:, None], axis=1)  # the corner alone on its side
    rows = np.arange(len(corners))
    ends = []
    for other in (1, 2):
        k = (lone + other) % 3
        t = side[rows, lone] / (side[rows, lone] - side[rows, k])
        ends.append(corners[rows, lone] + t[:, None] * (corners[rows, k] - corners[rows, lone]))
    return np.stack(ends, axis=1)


def _segments(axes: Axes, segments: Array, color: str, width: float) -> None:
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(list(segments), colors=color, linewidths=width))
