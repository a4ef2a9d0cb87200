# SPDX-License-Identifier: Apache-2.0
"""How does an enhanced run go back to where it came from? The same kind of file, grey scale and bit depth."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fluoronav.enhance.chain import Chain, ChainState
from fluoronav.enhance.derive_dicom import Derivation, write_dicom
from fluoronav.enhance.enhanced import Enhanced
from fluoronav.enhance.uncertainty import Spool, is_unusable
from fluoronav.files import whole_or_nothing
from fluoronav.imaging.folder import dicom_files
from fluoronav.imaging.frame import Frame
from fluoronav.imaging.run import Run, open_run
from registration.errors import BadInput
from registration.geometry import Array

Progress = Callable[[float, str], None]


@dataclass(slots=True)
class Derived:
    """What was written: path, frames, milliseconds of each, badges with their counts, warnings."""

    output: str
    frames: int
    ms: list[float] = field(default_factory=list)
    badges: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # of a folder: one sentence a file that could not be used
    chain: str = ""
    uncertainty: str | None = None  # where the standard deviations were written
    uncertainty_unit: str | None = None  # what their numbers are
    shifts_px: list[tuple[float, float]] = field(default_factory=list)  # (du, dv) of each frame, where stabilised


def enhance_path(source: Path, output: Path, chain: Chain | None = None, progress: Progress | None = None, *,
                 uncertainty: Path | None = None) -> Derived:
    """Enhance a DICOM file, a folder of pictures, a picture or a video into the same kind at `output`; the standard
    deviation of each pixel into the same kind at `uncertainty`.

    Written whole or not at all. Raises BadInput where the output would replace the input or the uncertainty of what
    was asked for is not known, BadPixels where the input cannot be used; a fault of geometry is only a warning.
    """
    if not source.exists():
        open_run(source)  # says that nothing is there
    _check_output(source, output)
    work = chain or Chain()
    if uncertainty is not None:
        _check_uncertainty(source, output, uncertainty, work)
    if source.is_dir() and (runs := dicom_files(source)):
        return _enhance_folder(runs, output, work, progress, uncertainty)
    run = open_run(source)
    report = Derived(str(output), len(run.frames), chain=work.settings.describe())
    report.warnings += [note.removeprefix("warning: ") for note in run.notes if note.startswith("warning: ")]
    if run.geometry_error is not None and run.kind == "dicom":
        report.warnings.append(f"{run.geometry_error} (geometry is not needed to enhance)")
    spool = Spool() if uncertainty is not None else None
    pictures = _pictures(run, work, report, progress or (lambda share, text: None), spool)
    report.warnings += _write(run, pictures, output, Derivation(report.chain, factor=work.factor))
    if report.shifts_px:
        most = max(max(abs(u), abs(v)) for u, v in report.shifts_px)
        report.warnings.append(f"frames were moved by up to {most:.1f} px, which the header cannot say frame by frame: "
                               "register from the original")
    if spool is not None and uncertainty is not None:
        report.uncertainty, report.uncertainty_unit = str(uncertainty), spool.described()
        _write(run, spool.pictures(), uncertainty, Derivation(f"{spool.described()}; of: {report.chain}", "uncertainty",
                                                              step=spool.step))
    return report


def _write(run: Run, pictures: Iterator[Array], output: Path, derivation: Derivation) -> list[str]:
    """The pictures in the kind of file that the run came from; answers with warnings."""
    if run.kind == "dicom":
        return write_dicom(run, pictures, output, derivation)
    if run.kind == "video":
        write_video(run, pictures, output, derivation)
    else:
        write_pictures(run, pictures, output, derivation.description)
    return []


def _enhance_folder(files: list[Path], output: Path, chain: Chain, progress: Progress | None,
                    uncertainty: Path | None) -> Derived:
    """Every DICOM file of a folder is a run of its own; those that cannot be used are named, the others written."""
    whole = Derived(str(output), 0)
    made = [folder for folder in (output, uncertainty) if folder is not None and not folder.exists()]
    for folder in made:
        folder.mkdir()
    if uncertainty is not None:
        whole.uncertainty = str(uncertainty)
    for number, file in enumerate(files):
        try:
            sure = None if uncertainty is None else uncertainty / file.name
            one = enhance_path(file, output / file.name, chain, uncertainty=sure)
        except BadInput as error:
            whole.refused.append(str(error))
            continue
        whole.frames, whole.chain = whole.frames + one.frames, one.chain
        whole.ms, whole.shifts_px = whole.ms + one.ms, whole.shifts_px + one.shifts_px
        whole.uncertainty_unit = one.uncertainty_unit
        whole.warnings += [f"{file.name}: {warning}" for warning in one.warnings]
        for badge, count in one.badges.items():
            whole.badges[badge] = whole.badges.get(badge, 0) + count
        if progress is not None:
            progress((number + 1) / len(files), file.name)
    for folder in made:
        if not any(folder.iterdir()):
            folder.rmdir()
    return whole


def stored_values(frame: Frame, enhanced: Enhanced) -> Array:
    """The clean signal rounded to the frame's type; pixels outside the field keep what they were, and where the
    picture was moved they are black."""
    assert enhanced.values is not None
    top = (1 << frame.intensity.bits) - 1
    clean = np.clip(np.rint(enhanced.values), 0, top).astype(frame.pixels.dtype)
    factor = clean.shape[0] // frame.pixels.shape[0]
    outside = frame.pixels if factor == 1 else frame.pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    if enhanced.shift_px != (0.0, 0.0):
        outside = np.full_like(clean, 0 if frame.intensity.dense == "dark" else top)
    return np.where(enhanced.valid, clean, outside)


def _pictures(run: Run, chain: Chain, report: Derived, progress: Progress, spool: Spool | None) -> Iterator[Array]:
    """Enhanced frames in stored orientation, in order."""
    state: ChainState | None = None
    for k, frame in enumerate(run.frames):
        start = time.perf_counter()
        state, enhanced = chain.step(state, frame)
        report.ms.append((time.perf_counter() - start) * 1000)
        for badge in enhanced.badges:
            report.badges[badge] = report.badges.get(badge, 0) + 1
        if chain.settings.stabilise:
            du, dv = enhanced.shift_px
            report.shifts_px.append((-du if run.flipped else du, dv))
        if spool is not None:
            spool.add(frame, enhanced, run.flipped)
        picture = as_it_came(frame, enhanced) if is_unusable(enhanced) else stored_values(frame, enhanced)
        progress((k + 1) / len(run.frames), f"frame {k + 1} of {len(run.frames)}")
        yield np.ascontiguousarray(picture[:, ::-1] if run.flipped else picture)


def as_it_came(frame: Frame, enhanced: Enhanced) -> Array:
    """The frame itself, in the size of the run."""
    factor = enhanced.valid.shape[0] // frame.pixels.shape[0]
    return frame.pixels if factor == 1 else frame.pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _check_uncertainty(source: Path, output: Path, uncertainty: Path, chain: Chain) -> None:
    """Raises BadInput where the standard deviation is not known, or its file would replace another."""
    heads = [word for word, on in (("--contrast", chain.settings.contrast > 0), ("--superres", chain.settings.superres),
                                   ("--stabilise", chain.settings.stabilise)) if on]
    if heads:
        raise BadInput("--uncertainty", got="together with " + " and ".join(heads),
                       expected="the denoised picture alone, whose standard deviation is known pixel by pixel",
                       remedy="run enhance twice, once for the picture and once for its uncertainty")
    if uncertainty.resolve() == output.resolve():
        raise BadInput(f"uncertainty {uncertainty}", got="the output itself", expected="another file",
                       remedy="give another name")
    _check_output(source, uncertainty)


def _check_output(source: Path, output: Path) -> None:
    remedy = "give another name"
    if output.exists() and output.resolve() == source.resolve():
        raise BadInput(f"output {output}", got="the input itself", expected="another file", remedy=remedy)
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise BadInput(f"output {output}", got="a place inside the input", expected="another folder", remedy=remedy)
    if not output.resolve().parent.is_dir():
        raise BadInput(f"output {output}", got="a folder that does not exist", expected=f"{output.parent} to be there",
                       remedy="create it")
    if output.is_dir() and (not source.is_dir() or any(output.iterdir())):
        raise BadInput(f"output {output}", got="a folder with files in it" if source.is_dir() else "a folder",
                       expected="an empty or new folder" if source.is_dir() else "a file name", remedy=remedy)
    if source.is_dir() and output.is_file():
        raise BadInput(f"output {output}", got="a file", expected="a folder, as the input is", remedy=remedy)


# --------------------------------------------------------------------------------------------------
# Pictures and video


def write_pictures(run: Run, pictures: Iterator[Array], output: Path, description: str) -> None:
    """A folder of pictures under their own names, or one picture (a TIFF may have pages)."""
    if run.path.is_dir():
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.resolve().parent))
        try:
            for file, group in _by_file(run, pictures):
                _write_picture(folder / _lossless_name(file), group, description)
            folder.chmod(0o755)
            if output.is_dir():
                output.rmdir()
            folder.replace(output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    if _lossless_name(output).suffix.lower() != output.suffix.lower():
        raise BadInput(f"output {output}", got=output.suffix or "no suffix", expected=".png, .tif or .bmp",
                       remedy="name a lossless format")
    with whole_or_nothing(output) as part:
        _write_picture(part, list(pictures), description)


def _by_file(run: Run, pictures: Iterator[Array]) -> Iterator[tuple[Path, list[Array]]]:
    from fluoronav.imaging.pictures import pages_of

    for file in run.files:
        yield file, [next(pictures) for _ in range(pages_of(file))]


def _lossless_name(file: Path) -> Path:
    """The name of a picture, .png where its own format is lossy or has no writer."""
    return Path(file.name) if file.suffix.lower() in (".png", ".tif", ".tiff", ".bmp") else Path(file.stem + ".png")


def _write_picture(path: Path, pages: list[Array], description: str) -> None:
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        tifffile.imwrite(path, np.stack(pages) if len(pages) > 1 else pages[0], photometric="minisblack",
                         compression="zlib", software="fluoronav", description=f"DERIVED, fluoronav: {description}")
        return
    import cv2

    done, data = cv2.imencode(path.suffix.lower(), pages[0])
    if not done:
        raise BadInput(f"output {path.name}", got=f"{pages[0].dtype}", expected="a format that holds it",
                       remedy="use .png or .tif")
    path.write_bytes(data.tobytes())


def write_video(run: Run, pictures: Iterator[Array], output: Path, derivation: Derivation) -> None:
    """A lossless grey video (ffv1) with the times of the input, in a Matroska or AVI file."""
    import av

    if output.suffix.lower() not in (".mkv", ".avi"):
        raise BadInput(f"output {output}", got=output.suffix or "no suffix", expected=".mkv or .avi",
                       remedy="enhanced videos are lossless (ffv1), which these two hold")
    from fractions import Fraction

    wide = run.frames[0].pixels.dtype == np.uint16 or derivation.step is not None
    step_s = run.nominal_interval_s or 1 / 15
    rate = Fraction(1 / step_s).limit_denominator(1001)
    with whole_or_nothing(output) as part, av.open(str(part), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = (n * derivation.factor for n in run.shape)
        stream.pix_fmt = "gray16le" if wide else "gray"
        container.metadata["comment"] = f"DERIVED, fluoronav: {derivation.description}"
        for k, picture in enumerate(pictures):
            image = av.VideoFrame.from_ndarray(picture, format=stream.pix_fmt)
            image.pts, image.time_base = k, 1 / rate
            container.mux(stream.encode(image))
        container.mux(stream.encode())
