# SPDX-License-Identifier: Apache-2.0
"""What may a person choose for a live run? One frozen value that goes into the session as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from fluoronav.enhance.chain import ChainSettings
from fluoronav.enhance.denoise import DenoiseSettings
from registration.errors import BadInput
from registration.geometry import Rigid
from registration.model import Settings

OVERLAYS = ("auto", "vtk", "lines", "none")
VIEWS = ("raw", "enhanced")
KINDS = (None, "implant", "volume", "vessels", "mr")


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """Settings of a Pipeline; `to_json` and `from_json` are inverse to each other.

    tolerance_mm: the gate's bound on the projected 95 % error; threads: changes speed, never bits; seed: of
    every random draw; init: `angles`, `search`, or {"carm_from_patient": 4x4} at the first frame; by: what is
    registered where the case has several (None: its first kind); view: whether the raw or the enhanced
    picture is tracked (raw: on the demo patient 0.12 mm in the picture against 0.18 mm, as denoising lags behind
    breathing and hides the noise that the gate wants to see); chain: the enhancement; overlay: who draws
    (`auto`, `vtk`, `lines`, `none`); tissue_mm: how far the target moves against the bones of a CT with breath
    and pulse, one standard deviation an axis, part of the stated bounds: 0.5 is assumed (renal ostia move by 1 to 2 mm
    from end to end of quiet breathing). Raises BadInput.
    """

    tolerance_mm: float = 5.0
    threads: int = 2
    seed: int = 0
    init: str | dict[str, Any] = "angles"
    by: Literal["implant", "volume", "vessels", "mr"] | None = None
    view: Literal["raw", "enhanced"] = "raw"
    overlay: Literal["auto", "vtk", "lines", "none"] = "auto"
    chain: ChainSettings = field(default_factory=ChainSettings)
    tissue_mm: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.tolerance_mm < float("inf"):
            raise BadInput("tolerance", got=self.tolerance_mm, expected="a number of mm above 0",
                           remedy="give --tolerance-mm, such as 5")
        if not 0 <= self.tissue_mm < float("inf"):
            raise BadInput("tissue motion", got=self.tissue_mm, expected="a number of mm, 0 or more",
                           remedy="give --tissue-motion-mm, such as 0.5")
        if self.threads < 1:
            raise BadInput("threads", got=self.threads, expected="1 or more", remedy="give a whole number")
        choices = (("overlay", self.overlay, OVERLAYS), ("view", self.view, VIEWS), ("by", self.by, KINDS))
        for name, value, allowed in choices:
            if value not in allowed:
                raise BadInput(name, got=value, expected=", ".join(map(str, allowed)), remedy="choose one of them")
        if isinstance(self.init, dict):
            if set(self.init) != {"carm_from_patient"}:
                raise BadInput("init", got=sorted(self.init), expected='{"carm_from_patient": 4x4}',
                               remedy="give one pose")
            pose = Rigid.checked(self.init["carm_from_patient"], "init, carm_from_patient")
            object.__setattr__(self, "init", {"carm_from_patient": pose.tolist()})
        elif self.init not in ("angles", "search"):
            raise BadInput("init", got=self.init, expected="angles, search or a pose", remedy="choose one of them")

    @property
    def registration(self) -> Settings:
        """What the models take."""
        return Settings(self.tolerance_mm, self.threads, self.seed, self.tissue_mm)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PipelineSettings:
        """Settings from what `to_json` gave. Raises BadInput for keys that are not known."""
        known = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or not set(data) <= known:
            raise BadInput("settings of the pipeline", got=data if not isinstance(data, dict) else
                           sorted(set(data) - known), expected=", ".join(sorted(known)),
                           remedy="use the version of the program that wrote them")
        try:
            chain = dict(data.get("chain", {}))
            denoiser = DenoiseSettings(**chain.pop("denoiser", {}))
            return cls(**(data | {"chain": ChainSettings(**chain, denoiser=denoiser)}))
        except TypeError as error:
            raise BadInput("settings of the pipeline", got=str(error), expected="known keys",
                           remedy="use the version of the program that wrote them") from error

    def with_tolerance(self, tolerance_mm: float) -> PipelineSettings:
        """The same with another tolerance."""
        return replace(self, tolerance_mm=tolerance_mm)
