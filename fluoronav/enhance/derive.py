# SPDX-License-Identifier: Apache-2.0
"""How does an enhanced run go back to where it came from? The same kind of file, grey scale and bit depth."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fluoronav.enhance.chain import Chain, ChainState
from fluoronav.enhance.enhanced import Enhanced
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


def enhance_path(source: Path, output: Path, chain: Chain | None = None, progress: Progress | None = None) -> Derived:
    """Enhance a DICOM file, a folder of pictures, a picture or a video into the same kind at `output`.

    Written whole or not at all. Raises BadInput where the output would replace the input, BadPixels
    where the input cannot be used; a fault of geometry is only a warning.
    """
    if not source.exists():
        open_run(source)  # says that nothing is there
    _check_output(source, output)
    if source.is_dir() and (runs := dicom_files(source)):
        return _enhance_folder(runs, output, chain, progress)
    run = open_run(source)
    work = chain or Chain()
    report = Derived(str(output), len(run.frames), chain=work.settings.describe())
    report.warnings += [note.removeprefix("warning: ") for note in run.notes if note.startswith("warning: ")]
    if run.geometry_error is not None and run.kind == "dicom":
        report.warnings.append(f"{run.geometry_error} (geometry is not needed to enhance)")
    pictures = _pictures(run, work, report, progress or (lambda share, text: None))
    if run.kind == "dicom":
        from fluoronav.enhance.derive_dicom import write_dicom

        report.warnings += write_dicom(run, pictures, output, report.chain)
    elif run.kind == "video":
        write_video(run, pictures, output)
    else:
        write_pictures(run, pictures, output)
    return report


def _enhance_folder(files: list[Path], output: Path, chain: Chain | None, progress: Progress | None) -> Derived:
    """Every DICOM file of a folder is a run of its own; those that cannot be used are named, the others written."""
    whole = Derived(str(output), 0)
    output.mkdir(exist_ok=True)
    for number, file in enumerate(files):
        try:
            one = enhance_path(file, output / file.name, chain)
        except BadInput as error:
            whole.refused.append(str(error))
            continue
        whole.frames, whole.chain = whole.frames + one.frames, one.chain
        whole.ms += one.ms
        whole.warnings += [f"{file.name}: {warning}" for warning in one.warnings]
        for badge, count in one.badges.items():
            whole.badges[badge] = whole.badges.get(badge, 0) + count
        if progress is not None:
            progress((number + 1) / len(files), file.name)
    return whole


def stored_values(frame: Frame, enhanced: Enhanced) -> Array:
    """The clean signal rounded to the frame's type; pixels outside the field keep what they were."""
    assert enhanced.values is not None
    top = (1 << frame.intensity.bits) - 1
    clean = np.clip(np.rint(enhanced.values), 0, top).astype(frame.pixels.dtype)
    return np.where(frame.valid, clean, frame.pixels)


def _pictures(run: Run, chain: Chain, report: Derived, progress: Progress) -> Iterator[Array]:
    """Enhanced frames in stored orientation, in order."""
    state: ChainState | None = None
    for k, frame in enumerate(run.frames):
        start = time.perf_counter()
        state, enhanced = chain.step(state, frame)
        report.ms.append((time.perf_counter() - start) * 1000)
        for badge in enhanced.badges:
            report.badges[badge] = report.badges.get(badge, 0) + 1
        unusable = any(badge.endswith("not enhanced") for badge in enhanced.badges)
        picture = frame.pixels if unusable else stored_values(frame, enhanced)
        progress((k + 1) / len(run.frames), f"frame {k + 1} of {len(run.frames)}")
        yield np.ascontiguousarray(picture[:, ::-1] if run.flipped else picture)


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


@contextmanager
def whole_or_nothing(output: Path) -> Iterator[Path]:
    """A path beside `output` to write a file to; it becomes `output` only when all went well."""
    handle, name = tempfile.mkstemp(prefix=f".{output.name}.", suffix=output.suffix, dir=output.resolve().parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------------
# Pictures and video


def write_pictures(run: Run, pictures: Iterator[Array], output: Path) -> None:
    """A folder of pictures under their own names, or one picture (a TIFF may have pages)."""
    if run.path.is_dir():
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.resolve().parent))
        try:
            for file, group in _by_file(run, pictures):
                _write_picture(folder / _lossless_name(file), group)
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
        _write_picture(part, list(pictures))


def _by_file(run: Run, pictures: Iterator[Array]) -> Iterator[tuple[Path, list[Array]]]:
    from fluoronav.imaging.pictures import pages_of

    for file in run.files:
        yield file, [next(pictures) for _ in range(pages_of(file))]


def _lossless_name(file: Path) -> Path:
    """The name of a picture, .png where its own format is lossy or has no writer."""
    return Path(file.name) if file.suffix.lower() in (".png", ".tif", ".tiff", ".bmp") else Path(file.stem + ".png")


def _write_picture(path: Path, pages: list[Array]) -> None:
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        tifffile.imwrite(path, np.stack(pages) if len(pages) > 1 else pages[0], photometric="minisblack",
                         compression="zlib", software="fluoronav", description="DERIVED, enhanced")
        return
    import cv2

    done, data = cv2.imencode(path.suffix.lower(), pages[0])
    if not done:
        raise BadInput(f"output {path.name}", got=f"{pages[0].dtype}", expected="a format that holds it",
                       remedy="use .png or .tif")
    path.write_bytes(data.tobytes())


def write_video(run: Run, pictures: Iterator[Array], output: Path) -> None:
    """A lossless grey video (ffv1) with the times of the input, in a Matroska or AVI file."""
    import av

    if output.suffix.lower() not in (".mkv", ".avi"):
        raise BadInput(f"output {output}", got=output.suffix or "no suffix", expected=".mkv or .avi",
                       remedy="enhanced videos are lossless (ffv1), which these two hold")
    from fractions import Fraction

    wide = run.frames[0].pixels.dtype == np.uint16
    step_s = run.nominal_interval_s or 1 / 15
    rate = Fraction(1 / step_s).limit_denominator(1001)
    with whole_or_nothing(output) as part, av.open(str(part), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = run.shape
        stream.pix_fmt = "gray16le" if wide else "gray"
        container.metadata["comment"] = "DERIVED, enhanced by fluoronav"
        for k, picture in enumerate(pictures):
            image = av.VideoFrame.from_ndarray(picture, format=stream.pix_fmt)
            image.pts, image.time_base = k, 1 / rate
            container.mux(stream.encode(image))
        container.mux(stream.encode())
