# SPDX-License-Identifier: Apache-2.0
"""How does fluoronav refuse? With one sentence of four parts, the same on every floor."""

from __future__ import annotations


class BadInput(ValueError):
    """Input that cannot be used; becomes one sentence for the user and exit code 2.

    Parameters
    ----------
    what : what is wrong, with the name of the file or the argument
    got : what was found
    expected : what would have been right
    remedy : what the person can do about it
    """

    def __init__(self, what: str, *, got: object, expected: str, remedy: str) -> None:
        self.what, self.got, self.expected, self.remedy = what, str(got), expected, remedy
        super().__init__(f"{what}: got {self.got}, expected {expected}; {remedy}.")

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (_rebuild, (self.what, self.got, self.expected, self.remedy))


class BadGeometry(BadInput):
    """A fault of geometry (angles, distances, spacing): stops registration, not enhancement."""


class BadPixels(BadInput):
    """A fault of pixels: nothing can be done with such a picture."""


def _rebuild(what: str, got: str, expected: str, remedy: str) -> BadInput:
    return BadInput(what, got=got, expected=expected, remedy=remedy)
