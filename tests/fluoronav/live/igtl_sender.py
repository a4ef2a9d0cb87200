# SPDX-License-Identifier: Apache-2.0
"""A process that really sends: `python igtl_sender.py PORT FRAMES.npy [FPS]` serves pictures by pyigtl until killed."""

from __future__ import annotations

import logging
import sys
import time

import numpy as np
import pyigtl


def main() -> None:
    logging.disable(logging.CRITICAL)
    port, pictures = int(sys.argv[1]), np.load(sys.argv[2])
    interval = 1 / float(sys.argv[3]) if len(sys.argv) > 3 else 0.05
    server = pyigtl.OpenIGTLinkServer(port=port, local_server=True)
    # C-arm at rest in the room of 3D Slicer (R, A, S): rows of carm_from_room for LAO 25, CAUD 10, turned by hand
    a, b = np.radians(25.0), np.radians(-10.0)
    rows = np.array([[np.cos(a), np.sin(a), 0], [np.sin(a) * np.sin(b), -np.cos(a) * np.sin(b), -np.cos(b)],
                     [-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), -np.sin(b)]])
    room_ras_from_carm = np.eye(4)
    room_ras_from_carm[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ rows.T
    table = np.eye(4)
    table[:3, 3] = -1.0, -2.0, 3.0
    while True:
        for picture in pictures:
            if server.is_connected():
                now = time.time()
                server.send_message(pyigtl.StringMessage("idle", device_name="Status"), wait=False)
                for name, matrix in (("CArmToRoom", room_ras_from_carm), ("TableToRoom", table)):
                    server.send_message(pyigtl.TransformMessage(matrix, device_name=name, timestamp=now), wait=False)
                server.send_message(pyigtl.ImageMessage(picture[None], device_name="Image", timestamp=now), wait=False)
            time.sleep(interval)


if __name__ == "__main__":
    main()
