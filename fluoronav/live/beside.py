# SPDX-License-Identifier: Apache-2.0
"""Who runs the long work? One thread beside the step; the newest job waits, results are fetched when done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fluoronav.live.jobs import Job


class Beside:
    """Runs jobs one after another in a thread of its own. A job that waits is replaced by a newer one."""

    def __init__(self, run: Callable[[Job], dict[str, Any]], done: Callable[[], None]) -> None:
        self._run, self._done = run, done
        self._changed = threading.Condition()
        self._next: Job | None = None
        self._results: list[dict[str, Any]] = []
        self._busy = self._stopped = False
        self._thread = threading.Thread(target=self._work, name="fluoronav-jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        with self._changed:
            self._next = job
            self._changed.notify()

    @property
    def busy(self) -> bool:
        """Whether a job runs, waits, or has a result that nobody fetched."""
        with self._changed:
            return self._busy or self._next is not None or bool(self._results)

    @property
    def ready(self) -> bool:
        """Whether a result can be fetched."""
        with self._changed:
            return bool(self._results)

    def fetch(self) -> list[dict[str, Any]]:
        """Results that are done, each once."""
        with self._changed:
            out, self._results = self._results, []
            return out

    def stop(self) -> None:
        """No new job begins; one that runs is left to end by itself (it is pure and harms nobody)."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                job, self._next, self._busy = self._next, None, True
            assert job is not None
            try:
                result = self._run(job)
            except Exception as error:  # noqa: BLE001  a failed job is an answer; the pictures go on
                result = {"name": job.name, "how": job.how, "frame": job.frame, "outcome": "LOST",
                          "why": f"registration failed ({type(error).__name__}: {error})", "carm_from_patient": None,
                          "alternatives": [], "gantry": job.gantry.to_json(), "projected_error_mm": None}
            with self._changed:
                self._busy = False
                self._results.append(result)
            self._done()
