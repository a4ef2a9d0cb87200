# SPDX-License-Identifier: Apache-2.0
"""Files in, one answer a picture out: the work behind `fluoronav register`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fluoronav.imaging import Run, open_run
from fluoronav.locate.landmark_files import Landmarks, read_landmarks
from fluoronav.locate.models import Kind, center_of, kinds_to_try, model_for_case
from fluoronav.locate.pictures import Picture, pictures_of, view_of
from fluoronav.locate.starts import InitEntry, pose_at_angles, read_init, starts_for
from registration.errors import BadGeometry, BadInput
from registration.geometry import Float64
from registration.model import Model, Settings, View
from registration.result import Outcome, Registration

if TYPE_CHECKING:
    from fluoronav.case import Case

Progress = Callable[[float, str], None]
READ_AHEAD = 16  # frames of a run decoded before work begins
LONGEST = {"implant": 1024, "volume": 512, "vessels": 512, "mr": 512}  # pixels a side: what each method resolves


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may choose for `register`. init: `angles`, `search`, or a path. joint, intrinsics and bodies
    are for `register_together`."""

    init: str = "angles"
    index: int | None = None
    all_frames: bool = False
    carm_files: tuple[Path, ...] = ()
    sdd_mm: float | None = None
    sod_mm: float | None = None
    pixel_spacing_mm: float | None = None
    seen_from: str | None = None
    angles_in: str = "patient"
    by: Kind | None = None
    target_mm: Float64 | None = None
    joint: bool = False
    intrinsics: Literal["stated", "shared", "each"] = "stated"
    bodies: str = "auto"  # or `one`, `spine`, or a body of the case
    landmarks: Path | None = None  # of a file: where to begin, in place of `init`
    bone_edges: bool = False  # a search asks the outlines of bones as well
    settings: Settings = field(default_factory=Settings)

    @property
    def divides(self) -> bool:
        """Whether a part of the CT is asked for by name."""
        return self.bodies not in ("auto", "one")


@dataclass(frozen=True, slots=True)
class Located:
    """One answer: the JSON entry, the registration, and the picture that it belongs to."""

    entry: dict[str, Any]
    registration: Registration
    picture: Picture


def register_frames(case: Case, runs: Sequence[Run], options: Options, *, progress: Progress | None = None,
                    say: Callable[[str], None] = lambda line: None) -> list[Located]:
    """One answer for each run (each frame with all_frames), in order; `say` hears what was assumed.

    Raises BadInput, BadGeometry, BadPixels where nothing can be registered at all.
    """
    for run in runs:
        if run.geometry_error is not None and _geometry_needed(run, options):
            raise run.geometry_error
    models = [model_for_case(case, options.settings, by=kind, target_mm=options.target_mm)
              for kind in kinds_to_try(case, options.by)]
    if options.init == "search" and options.landmarks is None:
        _with_network(case, models, options.settings.threads, say)
        if options.bone_edges:
            _with_bone_edges(models)
    center, what = center_of(case, models[0].kind)
    inits: Sequence[str | InitEntry | Landmarks] = [options.init] * len(runs)
    if options.landmarks is not None:
        inits = read_landmarks(options.landmarks, [str(run.path) for run in runs])
    elif options.init not in ("angles", "search"):
        inits = read_init(options.init, [str(run.path) for run in runs])
    elif options.init == "angles":
        say(f"assumed: the isocenter is at {what}, {center.round(1).tolist()} mm (L, P, S)")
        for run in runs:
            if run.carm_from_room is None and run.frames[0].angles is None:
                raise BadGeometry(f"{run.name}, gantry angles", got="none",
                                  expected="primary and secondary angle",
                                  remedy="use --init search or --init FILE")
    out: list[Located] = []
    for k, (run, init) in enumerate(zip(runs, inits, strict=True)):
        if progress:
            progress(k / len(runs), run.name)
        for picture in pictures_of(run, index=options.index, all_frames=options.all_frames):
            say(f"{run.name}: registered on {picture.note}")
            found = _located(models[0], run, picture, center, init, options.settings)
            for other in models[1:]:
                if found.registration.outcome is Outcome.ACCEPTED:
                    break
                say(f"{run.name}: {found.entry['outcome']} by its {models[0].kind}; trying its {other.kind}")
                second = _located(other, run, picture, center, init, options.settings)
                if second.registration.outcome is Outcome.ACCEPTED:
                    found = second
            out.append(found)
    return out


def _with_bone_edges(models: Sequence[Model]) -> None:
    from registration.bone_edges import BoneEdges
    from registration.volume_model import VolumeModel

    for model in models:
        if isinstance(model, VolumeModel):
            model.proposers = (*model.proposers, BoneEdges(model))


def _with_network(case: Case, models: Sequence[Model], threads: int, say: Callable[[str], None]) -> None:
    """Let a network that was trained for the case propose starts, where there is one."""
    from registration.volume_model import VolumeModel

    volumes = [m for m in models if isinstance(m, VolumeModel)]
    if not volumes:
        return
    from fluoronav.case.pose_network import pose_proposer

    proposer, line = pose_proposer(case, threads=threads)
    if line:
        say(line)
    if proposer is not None:
        for model in volumes:
            model.proposers = (*model.proposers, proposer)


def _geometry_needed(run: Run, options: Options) -> bool:
    """A picture without distances cannot be registered; one without angles can, if they are not the start."""
    return run.frames[0].carm is None or (options.init == "angles" and options.landmarks is None)


def _located(model: Model, run: Run, picture: Picture, center: Float64, init: str | InitEntry | Landmarks,
             settings: Settings) -> Located:
    begin = time.perf_counter()
    view = view_of(picture, LONGEST[model.kind])
    starts = starts_for(model, view, run, picture.frame, center, settings, init)
    answer = model.register(view, starts, settings)
    elapsed = (time.perf_counter() - begin) * 1000
    before = init.carm_from_patient if isinstance(init, InitEntry) else pose_at_angles(run, picture.frame, center)
    entry = entry_of(answer, file=str(run.path), index=picture.index, elapsed_ms=elapsed)
    entry.update(_vessel_figures(model, view, before, answer))
    entry |= {"by": model.kind, "picture": picture.note}
    return Located(entry, answer, picture)


def entry_of(answer: Registration, *, file: str, index: int | None, elapsed_ms: float) -> dict[str, Any]:
    """The JSON entry of an answer, with the keys that DESIGN names, in their order."""
    error = answer.error
    return {
        "file": file, "index": index, "outcome": answer.outcome.value, "why": answer.why,
        "carm_from_patient": answer.carm_from_patient, "covariance": answer.covariance,
        "expected_error_mm": error.target_mm if error else None,
        "projected_error_mm": error.projected_mm if error else None,
        "similarity": answer.similarity, "start": answer.start, "elapsed_ms": elapsed_ms,
        "target_mm": error.target if error else None, "alternatives": list(answer.alternatives),
        "quality": dict(answer.quality)}


def _vessel_figures(model: Model, view: View, before: Float64 | None, answer: Registration) -> dict[str, Any]:
    from registration.vessels import VesselModel

    if not isinstance(model, VesselModel):
        return {}
    after = answer.carm_from_patient
    return {"vessel_mm_before": None if before is None else model.distance_mm(view, before),
            "vessel_mm_after": None if after is None else model.distance_mm(view, after)}


# --------------------------------------------------------------------------------------------------
# From paths to runs


def expand(paths: Sequence[Path], options: Options) -> tuple[list[Run], list[str]]:
    """The runs at paths, in order, and one line for each that cannot be used.

    A folder of DICOM files is as many runs; a folder of numbered pictures is one.
    Raises BadInput where the number of --carm files fits no reading.
    """
    files = [file for path in paths for file in _files(path)]
    carms = options.carm_files
    if len(carms) > 1 and len(carms) != len(files):
        raise BadInput("--carm", got=f"{len(carms)} files for {len(files)} inputs",
                       expected="one for all, or one for each input in order", remedy="repeat --carm for each view")
    runs, faults = [], []
    for k, file in enumerate(files):
        carm = None if not carms else carms[0] if len(carms) == 1 else carms[k]
        try:
            run = open_run(file, carm_file=carm, sdd_mm=options.sdd_mm, sod_mm=options.sod_mm,
                           pixel_spacing_mm=options.pixel_spacing_mm,
                           seen_from=options.seen_from, angles_in=options.angles_in)  # type: ignore[arg-type]
            if run.geometry_error is not None and _geometry_needed(run, options):
                raise run.geometry_error
            _readable(run)
        except BadInput as error:
            faults.append(str(error) if file.name in str(error) else f"{file.name}: {error}")
        else:
            runs.append(run)
    return runs, faults


def _readable(run: Run) -> None:
    """Decode frames of a run, so that a damaged one is refused, by name, before any work is done."""
    n = len(run.frames)
    for k in sorted({round(i * (n - 1) / max(1, READ_AHEAD - 1)) for i in range(READ_AHEAD)}):
        _ = run.frames[k]


def _files(path: Path) -> list[Path]:
    """The path, or the DICOM files in it where it is a folder that has some."""
    from fluoronav.imaging.folder import files_of

    if not path.is_dir():
        return [path]
    dicom = [f for f in files_of(path) if f.suffix.lower() in (".dcm", ".dicom") or _head(f)[128:132] == b"DICM"]
    return dicom or [path]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(132)
