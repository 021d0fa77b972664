"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess


def end_children(others: set[BaseProcess]) -> None:
    """End the processes that this one has started, but for ``others``."""
    for child in set(multiprocessing.active_children()) - others:
        child.terminate()


def die_with_parent() -> None:
    """End this process when its parent ends, however it ends: one that is killed leaves workers behind that go on writing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
