# SPDX-License-Identifier: Apache-2.0
"""What would a volume look like from here, and how does that change with the pose?

`project` is the one signature; `reference` holds what is right, in float64.
"""

from registration.projector.renderer import PATH_VARIABLE, Prepared, paths, project, projector_path

__all__ = ["PATH_VARIABLE", "Prepared", "paths", "project", "projector_path"]
