# SPDX-License-Identifier: Apache-2.0
"""What is drawn: a scene, a camera that matches the C-arm, a renderer, and what each outcome may show.

Imports only registration; VTK is imported when the first picture is drawn.
"""

from overlays.camera import moved_px
from overlays.compose import compose, may_show, nothing, shifted
from overlays.renderer import Overlay, Renderer, why_not_vtk
from overlays.rgba import straight
from overlays.scene import Layer, Scene, scene_of

__all__ = ["Layer", "Overlay", "Renderer", "Scene", "compose", "may_show", "moved_px", "nothing", "scene_of",
           "shifted", "straight", "why_not_vtk"]
