"""A rebuild gives way to requests: it holds the workspace for minutes, and nobody who asks to be erased waits for a proof."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flows.project import Project
from lmeraser.core.errors import LmeraserError
from lmeraser.erase.requests import Request

LOOKS_EVERY_S = 1.0


def carried_out(project: Project, request: Request) -> bool:
    """Whether an open request is one that a coordinator goes on with: not failed or paused, and not waiting for approval."""
    waits_for_a_person = request.state == "failed" or (request.state == "validated" and project.params.service.approval)
    return request.is_open and not waits_for_a_person and not request.is_paused(project.ledger.time())


def somebody_waits(project: Project) -> bool:
    """Whether a coordinator has something to carry out."""
    return any(carried_out(project, request) for request in project.ledger.all(open_only=True))


@contextmanager
def giving_way(project: Project) -> Iterator[None]:
    """Interrupt the main thread, as Ctrl-C does, as soon as a request is open: what runs here ends, and cleans up.

    To be entered in the main thread. Raises: KeyboardInterrupt.
    """
    done = threading.Event()
    main = threading.get_ident()

    def look() -> None:
        while True:
            try:
                if somebody_waits(project):
                    signal.pthread_kill(main, signal.SIGINT)  # also where it waits for a process
                    return
            except LmeraserError:
                pass  # the ledger is away: nobody can ask either
            if done.wait(LOOKS_EVERY_S):
                return

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a service may have been started with it ignored
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
