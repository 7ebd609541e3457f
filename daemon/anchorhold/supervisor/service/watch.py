"""Watches policy files and granted folders by inotify, through watchdog.

Watching is a convenience: what could not be watched is named in `status`, and a reload by signal or command
does the same. Nothing is granted or refused by what is seen here.
"""

from __future__ import annotations

import os
import threading

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from anchorhold.supervisor.service.documents import Documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.observers.api import BaseObserver

    from anchorhold.policy.schema import Policy

SETTLE_SECONDS = 0.3
"""A file that was written is looked at when nothing more happened to it for so long."""


class _Policies(FileSystemEventHandler):
    """Of a folder with policy files, tells of those that are watched."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self.paths: set[str] = set()
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("opened", "closed_no_write"):
            return
        for path in (event.src_path, event.dest_path):
            if path and (name := os.fsdecode(path)) in self.paths:
                self._changed(name)


class _Below(FileSystemEventHandler):
    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._documents.dispatch(event)


class Watch:
    """Observes until `close`. ``changed`` is called from a thread of its own, with a policy file's path."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._policies = _Policies(self._later)
        self._observer = _observer()
        self._folders: set[str] = set()
        self._timers: dict[str, threading.Timer] = {}
        self._lock = threading.Lock()
        self._below: dict[str, BaseObserver] = {}
        self.problems: dict[str, str] = {}
        """Folders with policy files that could not be watched, and why."""

    def policy_file(self, path: str) -> None:
        """Watch the folder of a policy file: editors replace files, so the file alone is not enough."""
        self._policies.paths.add(path)
        folder = os.path.dirname(path)
        if folder not in self._folders:
            try:
                self._observer.schedule(self._policies, folder, recursive=False)
                self._folders.add(folder)
            except OSError as error:
                self.problems[folder] = error.strerror or str(error)

    def data(self, policy: Policy) -> Documents:
        """Watch what a policy grants, in the place of what was watched for its name before."""
        before = self._below.pop(policy.name, None)
        if before is not None:
            _end(before)
        documents = Documents(policy.data)
        observer = self._below[policy.name] = _observer()
        for root in policy.data.read:
            try:
                observer.schedule(_Below(documents), root, recursive=True)
            except OSError as error:  # no such folder, or more folders than fs.inotify.max_user_watches
                documents.unwatched[root] = error.strerror or str(error)
        return documents

    def _later(self, path: str) -> None:
        with self._lock:
            before = self._timers.pop(path, None)
            if before is not None:
                before.cancel()
            timer = threading.Timer(SETTLE_SECONDS, self._fire, (path,))
            timer.daemon = True
            self._timers[path] = timer
            timer.start()

    def _fire(self, path: str) -> None:
        with self._lock:
            self._timers.pop(path, None)
        self._changed(path)

    def close(self) -> None:
        with self._lock:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
        for observer in (self._observer, *self._below.values()):
            _end(observer)


def _observer() -> BaseObserver:
    made = Observer()
    made.daemon = True
    made.start()
    return made


def _end(observer: BaseObserver) -> None:
    observer.stop()
    observer.join(2.0)
