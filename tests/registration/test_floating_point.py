# SPDX-License-Identifier: Apache-2.0
"""Our compiled parts leave the process's floating-point mode alone."""

from __future__ import annotations

import subprocess
import sys


def test_loading_the_compiled_parts_does_not_flush_subnormals_to_zero() -> None:
    """-ffast-math at link time would: other libraries (scipy's kd-tree) then crash or differ."""
    code = ("import numpy as np, registration.similarity, registration.vessels, registration.projector\n"
            "print(float((np.array([1e-310]) * 0.5)[0]) > 0)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
