# SPDX-License-Identifier: Apache-2.0
"""During the case: sources of frames, the pure step that answers each, and the threads around it.

`Pipeline.step(frame, commands, decisions)` is the same function live and in replay; `LiveRun` moves frames
through it against the clock; `open_source` opens files, folders that fill and OpenIGTLink streams.
"""
