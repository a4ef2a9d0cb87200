# SPDX-License-Identifier: Apache-2.0
"""Where does an MR lie in a CT, and what can an MR alone say about X-rays?

MR to CT: a rigid motion by mutual information (Mattes et al., IEEE TMI 22, 2003; SimpleITK), coarse to fine, from
several starts. The answer is doubted: restarted from around itself on other voxels it must come back, and it must
explain the pair better than the same pair shifted. An MR alone gives a guess of attenuation: air, soft tissue, and
bone where it is dark in between. Whatever is found with it is never more than AMBIGUOUS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from registration.errors import BadInput
from registration.geometry import Array, Float64, Rigid, Volume, read_only, water_attenuation_per_mm
from registration.model import Settings, Start, View
from registration.result import Outcome, Registration
from registration.volume_model import VolumeModel

if TYPE_CHECKING:
    import SimpleITK as sitk

SPACING_MM = 3.0  # of both volumes at the finest level: half of it is the error that is aimed at
LEAST_VOXELS = 20  # along each side at that spacing
TURNS_DEG = 12.0  # of the starts about each axis
AGAIN_DEG, AGAIN_MM = 3.0, 5.0  # of the restarts around the answer
LEAST_OVERLAP = 0.3  # of the MR inside the CT
WORST_SPREAD_MM = 3.0  # between the restarts: more than a voxel apart is no answer
SHIFT_MM = 15.0  # of the pair against which the answer is held
LEAST_GAIN = 1.25  # of mutual information over the best shifted pair; unrelated anatomies: see the tests
_HU = (-1000.0, 800.0)  # metal and dense bone beyond would take most of the histogram's bins

# Of an MR alone, shares of the median soft tissue's signal: what is darker is air or bone.
DARK = 0.3
AIR_PIECE_ML = 20.0  # dark pieces larger than that, or open to the outside, are air; the rest is taken for bone
BONE_TIMES_WATER = 1.6
# What a guessed model may be off by along each axis, one standard deviation: uncorrected gradients bend an MR by some
# mm towards the edge of its field, and where bone and air are guessed edges lie elsewhere.
GUESS_MM = 5.0


@dataclass(frozen=True, slots=True)
class MrMatch:
    """How an MR lies in a CT. ct_from_mr (4, 4): from the place its header gives it to the CT's patient frame; matched:
    whether to trust it; why: a sentence; information: mutual information there, nats; gain: its ratio to the best of
    the pairs shifted by 15 mm; spread_mm: largest distance, over the MR's corners, between restarts; overlap: share
    of the MR inside the CT; starts: how many were tried."""

    ct_from_mr: Float64
    matched: bool
    why: str
    information: float
    gain: float
    spread_mm: float
    overlap: float
    starts: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "ct_from_mr", read_only(self.ct_from_mr, np.float64))


def match_mr(mr: Volume, ct: Volume, *, threads: int = 2, seed: int = 1,
             progress: Callable[[float, str], None] = lambda share, text: None) -> MrMatch:
    """The rigid motion that lays an MR onto a CT (HU), doubted. Raises BadInput for volumes that hold nothing."""
    for name, volume in (("MR", mr), ("CT", ct)):
        _checked(name, volume)
    # the MR's voxels are asked, the CT is looked up: the smaller of the two decides what is compared
    fixed, moving = _image(_even(mr)), _image(_even(replace_data(ct, np.clip(ct.data, *_HU))))
    pair = _Pair(fixed, moving, threads)
    starts = _starts(mr, ct)
    coarse = []
    for k, start in enumerate(starts):
        progress(0.5 * k / len(starts), f"MR to CT: start {k + 1} of {len(starts)}")
        coarse.append(pair.refined(start, mr.center_mm, (4,), 40, seed))
    coarse.sort(key=lambda f: -f[1])
    fine = [pair.refined(pose, mr.center_mm, (2, 1), 60, seed) for pose, _ in coarse[:2]]
    pose, information = max(fine, key=lambda f: f[1])
    progress(0.8, "MR to CT: the answer is doubted")
    again = [pair.refined(Rigid.exp(xi) @ pose, mr.center_mm, (2, 1), 60, seed + 1 + k)[0]
             for k, xi in enumerate(_around(mr.center_mm, pose))]
    corners = mr.corners_mm
    places = np.array([Rigid.apply(p, corners) for p in (pose, *again)])
    spread = float(max(np.linalg.norm(a - b, axis=1).max() for a in places for b in places))
    information = pair.information(pose)
    shifted = [pair.information(Rigid.translation(*shift) @ pose)
               for axis in SHIFT_MM * np.eye(3) for shift in (axis, -axis)]
    gain = information / max(*shifted, 1e-6)
    overlap = _overlap(mr, ct, pose)
    faults = [text for text, bad in (
        (f"only {overlap:.0%} of the MR lies in the CT", overlap < LEAST_OVERLAP),
        (f"restarts end {spread:.1f} mm apart", spread > WORST_SPREAD_MM),
        (f"a pair shifted by {SHIFT_MM:g} mm explains nearly as much (ratio {gain:.2f}, {LEAST_GAIN:g} needed)",
         gain < LEAST_GAIN)) if bad]
    why = (f"{'; '.join(faults)}: check that both are of one patient and one region" if faults else
           f"restarts agree within {spread:.1f} mm, mutual information {gain:.1f} times that of shifted pairs")
    return MrMatch(pose, not faults, why, information, gain, spread, overlap, len(starts))


def replace_data(volume: Volume, data: Array) -> Volume:
    """The volume with other values (k, j, i)."""
    return Volume(np.asarray(data, np.float32), volume.patient_from_index)


def _checked(name: str, volume: Volume) -> None:
    if float(np.ptp(volume.data)) == 0:
        raise BadInput(f"{name} volume", got="one value everywhere", expected="an image of a patient",
                       remedy="check the export")
    size = np.array(volume.data.shape[::-1]) * np.asarray(volume.spacing_mm)
    if size.min() < LEAST_VOXELS * SPACING_MM:
        raise BadInput(f"{name} volume", got=f"{size.min():.0f} mm along one side",
                       expected=f"{LEAST_VOXELS * SPACING_MM:g} mm or more", remedy="give a whole volume, not a slab")


def _even(volume: Volume) -> Volume:
    """Blurred to SPACING_MM and thinned towards it, so that a sample speaks for its surroundings."""
    spacing = np.asarray(volume.spacing_mm)[::-1]
    sigma = np.sqrt(np.maximum((SPACING_MM / spacing) ** 2 - 1, 0)) / 2
    soft = ndimage.gaussian_filter(np.asarray(volume.data, np.float32), sigma)
    step = np.maximum(1, np.round(SPACING_MM / spacing)).astype(int)
    return Volume(np.ascontiguousarray(soft[::step[0], ::step[1], ::step[2]]),
                  volume.patient_from_index @ np.diag([*step[::-1].astype(float), 1.0]))


def _image(volume: Volume) -> sitk.Image:
    import SimpleITK as sitk

    spacing = np.asarray(volume.spacing_mm, float)
    image = sitk.GetImageFromArray(np.asarray(volume.data, np.float32))
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(x) for x in volume.patient_from_index[:3, 3]])
    image.SetDirection((volume.patient_from_index[:3, :3] / spacing).ravel().tolist())
    return image


class _Pair:
    """An MR and a CT as SimpleITK sees them; poses are ct_from_mr."""

    def __init__(self, fixed: sitk.Image, moving: sitk.Image, threads: int) -> None:
        self.fixed, self.moving, self.threads = fixed, moving, threads

    def refined(self, pose: Float64, center_mm: Float64, shrink: Sequence[int], steps: int,
                seed: int) -> tuple[Float64, float]:
        """(pose, mutual information) after gradient descent at each level."""
        import SimpleITK as sitk

        transform = sitk.Euler3DTransform()
        transform.SetCenter([float(x) for x in center_mm])
        rotation = pose[:3, :3]
        transform.SetMatrix(rotation.ravel().tolist(), 1e-6)
        transform.SetTranslation([float(x) for x in pose[:3, 3] + rotation @ center_mm - center_mm])
        method = self._method(0.2, seed)
        method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.01, steps, 0.6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel(list(shrink))
        method.SetSmoothingSigmasPerLevel([0.5 * s if s > 1 else 0.0 for s in shrink])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(self.fixed, self.moving)
        except RuntimeError:  # no sample of the MR falls into the CT: nothing to be had from this start
            return pose, 0.0
        out = np.eye(4)
        out[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
        out[:3, 3] = np.array(transform.GetTranslation()) + center_mm - out[:3, :3] @ center_mm
        return out, -float(method.GetMetricValue())

    def information(self, pose: Float64) -> float:
        """Mutual information of all voxels at a pose; 0 where too few overlap."""
        import SimpleITK as sitk

        transform = sitk.AffineTransform(3)
        transform.SetMatrix(pose[:3, :3].ravel().tolist())
        transform.SetTranslation([float(x) for x in pose[:3, 3]])
        method = self._method(1.0, 1)
        method.SetInitialTransform(transform, inPlace=True)
        try:
            return -float(method.MetricEvaluate(self.fixed, self.moving))
        except RuntimeError:
            return 0.0

    def _method(self, share: float, seed: int) -> sitk.ImageRegistrationMethod:
        import SimpleITK as sitk

        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(self.threads)
        method.SetMetricAsMattesMutualInformation(32)
        if share < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(share, seed)
        method.SetInterpolator(sitk.sitkLinear)
        return method


def _starts(mr: Volume, ct: Volume) -> list[Float64]:
    """Where the headers say, centers on each other, and that turned about each axis."""
    middle = ct.center_mm
    together = Rigid.translation(*(middle - mr.center_mm))
    out = [np.eye(4), together]
    for axis in np.eye(3):
        for way in (-1, 1):
            turn = Rigid.exp(np.r_[axis * way * np.radians(TURNS_DEG), 0, 0, 0])
            out.append(Rigid.translation(*middle) @ turn @ Rigid.translation(*-middle) @ together)
    for shift in (-60.0, 60.0):  # towards head and feet: an MR often covers less than the CT
        out.append(Rigid.translation(0, 0, shift) @ together)
    return out


def _around(center_mm: Float64, pose: Float64) -> list[Float64]:
    """Left perturbations of a pose: a turn about the MR's center and a shift, four ways."""
    center = Rigid.apply(pose, center_mm)
    out = []
    for signs in ((1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1)):
        way = np.array(signs) / np.sqrt(3)
        turn = Rigid.exp(np.r_[np.radians(AGAIN_DEG) * way, 0, 0, 0])
        about = Rigid.translation(*center) @ turn @ Rigid.translation(*-center)
        out.append(Rigid.log(Rigid.translation(*(AGAIN_MM * way[::-1])) @ about))
    return out


def _overlap(mr: Volume, ct: Volume, pose: Float64) -> float:
    """Share of the MR's grid inside the CT."""
    n = np.stack(np.meshgrid(*(np.linspace(0, s - 1, 12) for s in mr.data.shape[::-1]), indexing="ij"), -1)
    index = Rigid.apply(np.linalg.inv(ct.patient_from_index) @ pose @ mr.patient_from_index, n.reshape(-1, 3))
    return float(((index >= 0) & (index <= np.array(ct.data.shape[::-1]) - 1)).all(1).mean())


# --------------------------------------------------------------------------------------------------
# An MR alone


def attenuation_from_mr(mr: Volume, energy_kev: float = 60.0) -> Volume:
    """A guess of linear attenuation (1/mm) from MR intensities in any unit.

    Bright is soft tissue (water); dark and open to the outside, or in pieces larger than 20 ml, is air; what is dark
    in between is taken for bone (1.6 times water). Flowing blood, tendons and metal are dark as well: a guess.
    """
    _checked("MR", mr)
    values = np.asarray(mr.data, np.float32)
    low = float(np.percentile(values, 1))
    tissue = float(np.median(values[values > low + 0.15 * (np.percentile(values, 99) - low)])) - low
    dark = ndimage.gaussian_filter(values, 0.5) < low + DARK * tissue
    labels, n = ndimage.label(dark)
    sizes = np.bincount(labels.ravel(), minlength=n + 1) * float(np.prod(mr.spacing_mm)) / 1000
    faces = [labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]]
    air = sizes > AIR_PIECE_ML
    air[np.unique(np.concatenate([f.ravel() for f in faces]))] = True
    air[0] = False
    water = water_attenuation_per_mm(energy_kev)
    return replace_data(mr, np.where(~dark, water, np.where(air[labels], 0.0, BONE_TIMES_WATER * water)))


class MrModel:
    """An MR without a CT, to be found in a picture by its guessed attenuation: with low confidence at best.

    target_mm (3,): where errors are stated (default: the volume's). Raises BadInput.
    """

    kind = "mr"

    def __init__(self, mr: Volume, target_mm: Float64 | None = None, *, threads: int = 2) -> None:
        self.guess = VolumeModel(attenuation_from_mr(mr), target_mm, threads=threads)
        self.target_mm = self.guess.target_mm

    def register(self, view: View, starts: Sequence[Start], settings: Settings) -> Registration:
        """The pose of the guess; never ACCEPTED, and with the guess's own error in its bound."""
        return doubted(self.guess.register(view, starts, _with_guess(settings)))

    def track(self, view: View, start: Start, settings: Settings) -> Registration:
        """The pose of the guess near the last one; never ACCEPTED."""
        return doubted(self.guess.track(view, start, _with_guess(settings)))

    def search(self, view: View, hint: Float64 | None, settings: Settings) -> Sequence[Start]:
        """Starts from the guess."""
        return self.guess.search(view, hint, settings)


def _with_guess(settings: Settings) -> Settings:
    return replace(settings, tissue_mm=float(np.hypot(settings.tissue_mm, GUESS_MM)))


def doubted(answer: Registration) -> Registration:
    """The answer as one that a person must judge, whatever the gate says; the guess's error joins the covariance."""
    if answer.outcome is Outcome.LOST:
        return answer
    covariance = answer.covariance
    if covariance is not None:
        covariance = covariance + np.diag([0.0, 0.0, 0.0, *[GUESS_MM**2] * 3])
    bound = "" if answer.error is None else f", {answer.error.projected_mm:.0f} mm or less expected in the picture"
    return replace(answer, outcome=Outcome.AMBIGUOUS, covariance=covariance,
                   why=f"low confidence: bone and air are guessed from the MR, no CT confirms them (agreement "
                       f"{answer.similarity or 0:.2f}{bound}); judge it by eye, or give a CT")
