# SPDX-License-Identifier: Apache-2.0
"""`fluoronav doctor`: what does this machine have, and which paths will be used?"""

from __future__ import annotations


def doctor() -> None:
    """Say what this machine has and which code paths will be used."""
    import platform

    print(f"python {platform.python_version()} on {platform.platform()}")
