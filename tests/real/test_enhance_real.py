# SPDX-License-Identifier: Apache-2.0
"""Enhancement on real noise and real damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from test_xa_codings import GEOMETRY, PIXELS

from fluoronav.bench.enhance import chain_filter
from fluoronav.bench.wire import measure
from fluoronav.enhance import Chain, ChainSettings, Enhanced
from fluoronav.enhance.derive import enhance_path
from fluoronav.enhance.reference import line_best
from fluoronav.imaging import open_run
from fluoronav.imaging.frame import Frame
from registration.geometry import Array, CArm

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", [*GEOMETRY, *PIXELS])
def test_every_damaged_file_is_warned_of_or_refused(command: Callable[..., tuple[int, str, str]], shared_data: Path,
                                                    tmp_path: Path, name: str) -> None:
    source, output = shared_data / "xa_codings" / "bad" / f"{name}.dcm", tmp_path / "out.dcm"
    code, _, err = command("enhance", source, output)
    assert "Traceback" not in err
    if name in GEOMETRY:
        assert code == 0 and output.exists()
        assert f"{name}.dcm" in err and GEOMETRY[name] in err and "not needed to enhance" in err
        assert open_run(output).frames[0].pixels.shape == (512, 512)
    else:
        assert code == 2 and not list(tmp_path.iterdir())
        assert err.count("\n") == 1 and source.name in err and PIXELS[name] in err


def test_a_wire_in_real_noise_is_kept_while_the_noise_goes(shared_data: Path) -> None:
    run = np.stack([frame.pixels for frame in open_run(shared_data / "vessel_phantom" / "IM1").frames])
    both = [measure(run, chain_filter(), seed) for seed in (0, 1)]
    kept, noise, new, ghost = (float(np.mean([getattr(f, key) for f in both]))
                               for key in ("kept", "noise_left", "new_place", "ghost"))
    assert kept > 0.85 and noise < 0.30
    assert new > 0.75 and ghost < 0.03

    def recursive(frames: Iterator[Array]) -> Iterator[Array]:
        mean = None
        for x in frames:
            mean = x if mean is None else mean + 0.5 * (x - mean)
            yield mean

    plain = measure(run, recursive, seed=3)
    assert plain.kept < 0.6  # the measure tells a filter that smears


def test_a_real_wire_and_old_uids_go_through(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "xa_cines" / "atherectomy_catheter_12f_jpeg_lossless.dcm"
    enhance_path(source, tmp_path / "a.dcm")
    before, after = open_run(source), open_run(tmp_path / "a.dcm")
    assert len(after.frames) == 12 and after.frames[5].angles == before.frames[5].angles
    change = after.frames[11].pixels.astype(float) - before.frames[11].pixels
    assert np.abs(change).max() < 12 and abs(change.mean()) < 0.3  # grey steps: noise of 0.8 goes, no structure


@pytest.mark.parametrize(("name", "least_px"), [("atherectomy_catheter_12f_jpeg_lossless", 4.0),
                                                ("coronary_lca_view0_wrapped", 0.2)])
def test_a_stabilised_cine_keeps_its_wires_and_its_geometry(shared_data: Path, name: str, least_px: float) -> None:
    assumed = CArm((512, 512), (0.3, 0.3), 1100, 750, (255.5, 255.5))  # where the file says nothing of it
    frames = [replace(f, carm=f.carm or assumed) for f in open_run(shared_data / "xa_cines" / f"{name}.dcm").frames[:8]]
    plain, still = (_last(ChainSettings(stabilise=on), frames) for on in (False, True))
    du, dv = still.shift_px
    assert np.hypot(du, dv) > least_px
    points = np.array([[0.0, 0.0, 0.0], [20.0, -30.0, 40.0], [-35.0, 10.0, -60.0]])
    assert still.carm is not None and plain.carm is not None
    assert np.allclose(still.carm.project(points) - plain.carm.project(points), (du, dv), atol=1e-6)
    # where a point is seen now is what was there before, read by another interpolation
    inside = np.s_[64:-64, 64:-64]
    assert still.values is not None and plain.values is not None
    back = ndimage.shift(still.values.astype(float), (-dv, -du), order=3, mode="nearest")
    off, stayed = (np.sqrt(np.mean((x - plain.values)[inside] ** 2)) for x in (back, still.values))
    assert off < 0.5 and off < 0.5 * stayed  # grey steps: two interpolations blur the noise that is left
    before, after = (line_best((x - ndimage.gaussian_filter(x, 3.0)).astype(np.float32))[inside]
                     for x in (plain.values.astype(float), back))
    wires = before < np.quantile(before, 0.02)  # the darkest lines: wires, catheters, margins of vessels
    assert 0.95 < after[wires].mean() / before[wires].mean() < 1.03


def _last(settings: ChainSettings, frames: list[Frame]) -> Enhanced:
    chain, state = Chain(settings), None
    for frame in frames:
        state, enhanced = chain.step(state, frame)
    return enhanced
