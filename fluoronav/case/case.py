# SPDX-License-Identifier: Apache-2.0
"""What is known of the patient? CT, vessels, implant, path and target, all in one patient frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.case.store import AGAIN, read_array, read_manifest
from registration.errors import BadInput
from registration.geometry import Float64, Volume, read_only
from registration.segmentation import Segmentation
from registration.shapes import Mesh, Polylines


@dataclass(frozen=True, slots=True)
class Case:
    """A case folder, opened and checked. Everything is in the patient frame (L, P, S), mm.

    folder: where it lies; name: its pseudonym, such as CASE 7F3A
    volume_hu: the CT in Hounsfield units; mr: an MR in its own units, in the patient frame where it was registered
    to the CT, else where its own header puts it; None where there is none
    mr_match: how it was registered to the CT (ct_from_mr, matched, why and its figures); None where it was not tried
    surfaces, centerlines: vessels by name; implant: a mesh; path_mm (n, 3): the planned path
    target_mm (3,): always set; target_assumed: whether nobody gave it
    bodies: a segmentation of the CT into parts that may move by themselves; None where none was given
    notes: lines that begin with read, derived, assumed or warning
    checksum: sha256 over the manifest's content, which names the sha256 of every file
    """

    folder: Path
    name: str
    volume_hu: Volume | None
    surfaces: dict[str, Mesh]
    centerlines: dict[str, Polylines]
    implant: Mesh | None
    mr: Volume | None
    path_mm: Float64 | None
    target_mm: Float64
    target_assumed: bool
    notes: tuple[str, ...]
    checksum: str
    mr_match: dict[str, Any] | None = None
    bodies: Segmentation | None = None

    @property
    def contents(self) -> tuple[str, ...]:
        """What is in it, in words for a person."""
        return tuple(word for word, there in (
            ("CT", self.volume_hu is not None), ("bodies", self.bodies is not None), ("MR", self.mr is not None),
            ("vessels", bool(self.surfaces or self.centerlines)), ("implant", self.implant is not None),
            ("path", self.path_mm is not None)) if there)

    @classmethod
    def open(cls, folder: str | Path) -> Case:
        """The case in a folder. Raises BadInput where it is damaged, foreign or of a newer version."""
        place = Path(folder)
        manifest = read_manifest(place)
        try:
            return cls._from(place, manifest)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise BadInput(f"case {place.name}", got=f"a manifest without what a case needs ({error})",
                           expected="a whole manifest", remedy=AGAIN) from error

    @classmethod
    def _from(cls, folder: Path, manifest: dict[str, Any]) -> Case:
        parts, load = manifest["parts"], _Loader(folder, manifest)
        return cls(
            folder=folder, name=manifest["name"], volume_hu=load.volume(parts["volume_hu"]),
            surfaces={name: load.mesh(part) for name, part in parts["surfaces"].items()},
            centerlines={name: load.lines(part) for name, part in parts["centerlines"].items()},
            implant=None if parts["implant"] is None else load.mesh(parts["implant"]),
            mr=load.volume(parts["mr"]),
            path_mm=None if parts["path"] is None else read_only(load.array(parts["path"]["points"]), np.float64),
            target_mm=read_only(np.array(manifest["target_mm"], np.float64)),
            target_assumed=bool(manifest["target_assumed"]), notes=tuple(manifest["notes"]),
            checksum=manifest["checksum"], mr_match=manifest.get("mr_match"), bodies=load.bodies(parts.get("bodies")))


class _Loader:
    """Arrays of a manifest back into volumes, meshes and lines."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest

    def array(self, name: str) -> np.ndarray:
        return read_array(self.folder, self.manifest, name)

    def volume(self, part: dict[str, Any] | None) -> Volume | None:
        if part is None:
            return None
        return Volume(self.array(part["data"]), np.array(part["patient_from_index"], np.float64))

    def bodies(self, part: dict[str, Any] | None) -> Segmentation | None:
        labels = None if part is None else self.volume(part["labels"])
        return None if part is None or labels is None else Segmentation(tuple(part["names"]), labels)

    def mesh(self, part: dict[str, Any]) -> Mesh:
        return Mesh(self.array(part["vertices"]), self.array(part["faces"]))

    def lines(self, part: dict[str, Any]) -> Polylines:
        cuts = np.cumsum(self.array(part["lengths"]))[:-1]
        radius = None if part["radius"] is None else self.array(part["radius"])
        return Polylines(self.array(part["points"]), tuple(np.split(self.array(part["lines"]), cuts)), radius)


class Packer:
    """Volumes, meshes and lines as array files, and the words by which the manifest finds them."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def volume(self, name: str, volume: Volume | None) -> dict[str, Any] | None:
        """Whole numbers are kept as int16 where they fit, all else as float32: no value changes."""
        if volume is None:
            return None
        data = volume.data
        small = data.astype(np.int16) if abs(float(data.min())) < 32768 and float(data.max()) < 32768 else None
        keep = small if small is not None and np.array_equal(small, data) else data
        return {"data": self._add(f"{name}.zst", keep), "patient_from_index": volume.patient_from_index.tolist()}

    def bodies(self, segmentation: Segmentation | None) -> dict[str, Any] | None:
        if segmentation is None:
            return None
        return {"names": list(segmentation.names), "labels": self.volume("bodies", segmentation.labels)}

    def mesh(self, name: str, mesh: Mesh) -> dict[str, Any]:
        return {"vertices": self._add(f"{name}-vertices.zst", mesh.vertices),
                "faces": self._add(f"{name}-faces.zst", mesh.faces.astype(np.int32))}

    def lines(self, name: str, lines: Polylines) -> dict[str, Any]:
        radius = None if lines.radius_mm is None else self._add(f"{name}-radius.zst", lines.radius_mm)
        return {"points": self._add(f"{name}-points.zst", lines.points),
                "lines": self._add(f"{name}-lines.zst", np.concatenate(lines.lines).astype(np.int32)),
                "lengths": self._add(f"{name}-lengths.zst", np.array([len(x) for x in lines.lines], np.int32)),
                "radius": radius}

    def path(self, points: Float64 | None) -> dict[str, Any] | None:
        return None if points is None else {"points": self._add("path-points.zst", np.asarray(points, np.float64))}

    def _add(self, name: str, array: np.ndarray) -> str:
        self.arrays[name] = array
        return name
