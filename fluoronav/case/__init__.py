# SPDX-License-Identifier: Apache-2.0
"""Before the case: what is known of the patient, in one folder that can be trusted.

`create_case` reads CT, MR, vessels, implant, path and target; `Case.open` gives them back, checked.
"""

from fluoronav.case.case import Case
from fluoronav.case.create import create_case
from fluoronav.case.volumes import read_ct

__all__ = ["Case", "create_case", "read_ct"]
