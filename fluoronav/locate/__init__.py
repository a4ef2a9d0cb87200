# SPDX-License-Identifier: Apache-2.0
"""Where is the case's anatomy in these pictures? Case, frames and registration are joined here.

`register_frames` answers for files and folders, `register_together` for several views of one pose; their
parts serve the live pipeline: `model_for_case`, `view_of`, `starts_for`.
"""

from fluoronav.locate.models import center_of, model_for_case
from fluoronav.locate.pictures import Picture, pictures_of, view_of
from fluoronav.locate.registering import Located, Options, expand, register_frames
from fluoronav.locate.starts import read_init, starts_for
from fluoronav.locate.together import register_together

__all__ = ["Located", "Options", "Picture", "center_of", "expand", "model_for_case", "pictures_of", "read_init",
           "register_frames", "register_together", "starts_for", "view_of"]
