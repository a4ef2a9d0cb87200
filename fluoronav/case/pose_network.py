# SPDX-License-Identifier: Apache-2.0
"""Does this case have a network that knows its patient, and is it of this very volume? Trained, kept, opened.

Two files beside the manifest: pose.onnx, and pose.json, which names the sha256 of both the network and the volume that
it was trained on. The manifest's checksum does not cover them: a case is the same case with or without.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoronav.case.store import read_manifest
from fluoronav.files import write_whole
from registration.errors import BadInput

if TYPE_CHECKING:
    from fluoronav.case.case import Case
    from registration.search import Proposer

NETWORK, CARD, VERSION = "pose.onnx", "pose.json", 1
AGAIN = "train it again with `fluoronav case create --force --train-pose`"


def check_trainable(ct: object, minutes: float) -> None:
    """Whether a network may be trained at all; asked before the case is made. Raises BadInput."""
    if ct is None:
        raise BadInput("--train-pose", got="no CT", expected="a case with a CT, whose projections teach the network",
                       remedy="give --ct, or leave --train-pose out")
    if not 0 < minutes <= 60:
        raise BadInput("--train-minutes", got=minutes, expected="above 0, at most 60", remedy="give 3")
    missing = [m for m in ("torch", "onnx") if importlib.util.find_spec(m) is None]
    if missing:
        raise BadInput("--train-pose", got=f"{' and '.join(missing)} not installed", expected="both installed",
                       remedy="pip install 'fluoronav[train]', or leave --train-pose out")


def train_pose_network(case: Case, *, minutes: float, seed: int = 1, steps: int | None = None, threads: int = 2,
                       progress: Callable[[float, str], None] = lambda share, text: None) -> dict[str, Any]:
    """Train a network on the case's CT, put it into the case's folder, and return its card. Raises BadInput.

    A network that was there is replaced once the new one is whole.
    """
    check_trainable(case.volume_hu, minutes)
    from models.training.pose import train
    from registration.geometry import attenuation_from_hu

    assert case.volume_hu is not None
    trained = train(attenuation_from_hu(case.volume_hu), seconds=60 * minutes, steps=steps, seed=seed, threads=threads,
                    progress=progress)
    card = {"format": "fluoronav-pose-network", "version": VERSION, "volume_sha256": _volume_hash(case.folder),
            "network_sha256": hashlib.sha256(trained.onnx).hexdigest(), "seed": seed,
            **{k: v for k, v in asdict(trained).items() if k != "onnx"}}
    # the card goes last: until it stands, the network beside it is refused
    write_whole(case.folder / NETWORK, trained.onnx)
    write_whole(case.folder / CARD, (json.dumps(card, indent=1) + "\n").encode())
    return card


def pose_proposer(case: Case, *, threads: int = 2) -> tuple[Proposer | None, str]:
    """The proposer of a case's network and a line that says what it is; (None, why) where it cannot be used, and
    (None, "") where the case has none."""
    if case.volume_hu is None or not (case.folder / CARD).is_file():
        return None, ""
    try:
        card = _card(case)
        from models.pose_proposer import proposer

        made = proposer(case.folder / NETWORK, case.volume_hu.center_mm, threads=threads)
    except BadInput as error:
        return None, f"warning: the case's pose network is not used: {error}"
    except (RuntimeError, OSError) as error:  # what engines raise: the search does without it
        return None, f"warning: the case's pose network is not used: {type(error).__name__}: {error}"
    return made, f"the case's pose network proposes too (trained on {card['pictures']} projections)"


def _card(case: Case) -> dict[str, Any]:
    try:
        card = json.loads((case.folder / CARD).read_text(encoding="utf-8"))
        network = (case.folder / NETWORK).read_bytes()
        known = (card["format"], card["version"]) == ("fluoronav-pose-network", VERSION)
        whole = card["network_sha256"] == hashlib.sha256(network).hexdigest()
        ours = card["volume_sha256"] == _volume_hash(case.folder)
        card["pictures"] = int(card["pictures"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{CARD} of the case", got=f"{type(error).__name__}: {error}", expected="a whole card",
                       remedy=AGAIN) from error
    for good, got, expected in ((known, "another format or version", f"version {VERSION}"),
                                (whole, "a network that does not match its card", "an unchanged file"),
                                (ours, "a network trained on another volume", "this case's CT")):
        if not good:
            raise BadInput("pose network", got=got, expected=expected, remedy=AGAIN)
    return dict(card)


def _volume_hash(folder: Path) -> str:
    """sha256 of the CT's values and place."""
    manifest = read_manifest(folder)
    part = manifest["parts"]["volume_hu"]
    words = json.dumps([manifest["files"][part["data"]]["sha256"], part["patient_from_index"]])
    return hashlib.sha256(words.encode()).hexdigest()
