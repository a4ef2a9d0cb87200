# SPDX-License-Identifier: Apache-2.0
"""The enhancement chain: one frame in, clean line integrals with their noise and a picture to see out.

`Chain(settings).step(state, frame)` is pure; one file a stage, the hot loops compiled in native/.
"""

from fluoronav.enhance.chain import Chain, ChainSettings, ChainState
from fluoronav.enhance.enhanced import Enhanced, Heads

__all__ = ["Chain", "ChainSettings", "ChainState", "Enhanced", "Heads"]
