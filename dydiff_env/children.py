"""Processes that do not outlive the one that started them, nor wait for threads that it alone has."""

from __future__ import annotations

import multiprocessing
import os
import threading
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import torch

MOST = 61 if os.name == "nt" else 1024  # processes that a pool may have


def end_children(others: set[BaseProcess]) -> None:
    """End the processes that this one has started, but for ``others``."""
    for child in set(multiprocessing.active_children()) - others:
        child.terminate()


@cache
def one_thread_after_fork() -> None:
    """Have processes that are forked from this one compute with one thread.

    A fork copies no threads, and OpenMP, once it has had several, waits for them for ever. Gymnasium's ``AsyncVectorEnv`` forks by default
    (on Linux, before Python 3.14).
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


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
