# SPDX-License-Identifier: Apache-2.0
"""What is a vessel called in the case? By the words of anatomy in its file's name: a file may be named after
a person, so no other word is kept."""

from __future__ import annotations

import re
from collections.abc import Container

_KNOWN = frozenset(re.findall(r"\w+", """
abdominal accessory acute anterior aorta aortic arch arteria arterial arteries artery ascending avm axillary basilar
brachial brachiocephalic branch bronchial carotid caudate cava celiac central cerebellar cerebral circumflex colic
common communicating coronary deep descending diagonal distal dorsal external femoral fistula gastric
gastroduodenal gonadal great hepatic iliac inferior innominate intercostal internal intracranial jugular lad lca lcx
left lienal lumbar main marginal median mesenteric middle obtuse ophthalmic ovarian pancreaticoduodenal peroneal
phrenic popliteal portal posterior profunda proper prostatic proximal pulmonary radial rca renal right root saphenous
segment septal sinus splenic stent subclavian superficial superior suprarenal systemic testicular thoracic tibial
transverse trunk ulnar upper lower uterine vein veins vena venosus venous vertebral aneurysm
"""))


def vessel_name(file_name: str, taken: Container[str]) -> str:
    """A name made of the words of anatomy in a file's name, else `vessels`; numbered where taken."""
    stem = file_name.lower().split(".")[0]
    words = [word for word in re.split(r"[^a-z]+", stem) if word in _KNOWN]
    return unused(" ".join(words) or "vessels", taken)


def unused(name: str, taken: Container[str]) -> str:
    """The name, with the first free number behind it where it is taken."""
    if name not in taken:
        return name
    k = 2
    while f"{name} {k}" in taken:
        k += 1
    return f"{name} {k}"
