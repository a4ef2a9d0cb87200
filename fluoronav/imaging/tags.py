# SPDX-License-Identifier: Apache-2.0
"""What does a tag really say? Tolerant reading of DICOM values, telling absent, empty and unreadable apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TEXT_VRS = {"DS", "IS", "CS", "LO", "SH", "ST", "LT", "UI", "UT", "TM", "DA", "DT", "AS", "PN", "AE", "UC"}


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one tag: `state` is `absent`, `empty`, `bad` (not readable as finite numbers)
    or `ok`; text is what stood there."""

    state: str
    values: tuple[float, ...] = ()
    text: str = ""

    @property
    def first(self) -> float | None:
        """The first value, None unless the tag is readable."""
        return self.values[0] if self.state == "ok" else None


ABSENT = Numbers("absent")


def numbers(item: Dataset, keyword: str | int) -> Numbers:
    """Finite numbers of a tag, read from the raw bytes so that a broken value is seen as it is."""
    text = text_of(item, keyword)
    if text is None:
        return ABSENT
    parts = [part.strip() for part in text.split("\\")]
    if not any(parts):
        return Numbers("empty", text="present and empty")
    try:
        values = tuple(float(part) for part in parts)
    except ValueError:
        return Numbers("bad", text=repr(text))
    if not all(map(math.isfinite, values)):
        return Numbers("bad", values, repr(text))
    return Numbers("ok", values, text)


def text_of(item: Dataset, keyword: str | int) -> str | None:
    r"""The value of a tag as text (several values joined by \), None where the tag is absent."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement

    tag = tag_for_keyword(keyword) if isinstance(keyword, str) else keyword
    if tag is None or tag not in item:
        return None
    element = item.get_item(tag)
    if isinstance(element, RawDataElement):
        vr = element.VR
        if vr in (None, "UN"):
            try:
                vr = dictionary_VR(tag)
            except KeyError:
                vr = "UN"
        if vr in TEXT_VRS or vr == "UN":
            return (element.value or b"").decode("latin-1").strip("\x00 ")
    return _joined(_value(item, tag))


def code(item: Dataset, keyword: str) -> str:
    """A coded string in upper case, "" where absent or empty."""
    return (text_of(item, keyword) or "").strip().upper()


def _value(item: Dataset, tag: int) -> Any:
    try:
        return item[tag].value
    except Exception:  # noqa: BLE001 - whatever the file did to this element, it is not readable
        return "unreadable"


def _joined(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("latin-1").strip("\x00 ")
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value)
    return "\\".join(str(part) for part in value)


class Header:
    """The header of a DICOM file with the functional groups of one frame laid over it.

    `of(k)` looks for frame k: in the per-frame groups, then the shared groups, then the top level.
    """

    def __init__(self, dataset: Dataset, frame: int = 0) -> None:
        self.dataset, self.frame = dataset, frame
        self._layers = [dataset]
        for keyword, index in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", frame)):
            group = sequence(dataset, keyword)
            if index < len(group):
                self._layers = [*_macros(group[index]), *self._layers]

    def of(self, frame: int) -> Header:
        """The same header seen from another frame."""
        return Header(self.dataset, frame)

    @property
    def enhanced(self) -> bool:
        """Whether the file keeps geometry in functional groups (Enhanced XA or XRF)."""
        return len(self._layers) > 1

    def numbers(self, keyword: str | int) -> Numbers:
        """Finite numbers of a tag from the innermost place that has it."""
        for layer in self._layers:
            found = numbers(layer, keyword)
            if found.state != "absent":
                return found
        return ABSENT

    def code(self, keyword: str) -> str:
        """Coded string from the innermost place that has it, upper case, else ""."""
        return next((found for layer in self._layers if (found := code(layer, keyword))), "")

    def items(self, keyword: str) -> list[Dataset]:
        """Items of a sequence from the innermost place that has it."""
        return next((found for layer in self._layers if (found := sequence(layer, keyword))), [])


def sequence(item: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, [] where it is absent or unreadable."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None or tag not in item:
        return []
    value = _value(item, tag)
    return list(value) if value and not isinstance(value, (str, bytes)) else []


def _macros(group: Dataset) -> list[Dataset]:
    """The first item of every macro sequence of a functional group, and of those nested in it."""
    found: list[Dataset] = []
    for tag in group.keys():  # noqa: SIM118 - iterating a Dataset would convert every element
        value = _value(group, int(tag)) if _is_sequence(group, int(tag)) else None
        if value:
            found += [value[0], *_macros(value[0])]
    return found


def _is_sequence(group: Dataset, tag: int) -> bool:
    element = group.get_item(tag)
    return element is not None and (getattr(element, "VR", None) in ("SQ", None))
