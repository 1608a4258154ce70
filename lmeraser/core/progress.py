"""Progress that never leaves a person wondering: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_EVERY_S = 5.0


def track(items: Iterable[T], total: int, name: str, unit: str) -> Iterator[T]:
    """Yield the items and report count, rate and time left on standard error.

    Args:
        name: what is being done, without personal data: `pretrain`, `tune c07`.
        unit: what an item is: `batch`, `image`.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=name, unit=unit, leave=False, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last = now
            print(f"{name}: {tqdm.format_meter(done, total, now - start, unit=unit)}", file=sys.stderr, flush=True)
        yield item


def pace(items: Iterable[T], total: int, name: str, unit: str) -> Iterator[T]:
    """Yield the items, and tell every few seconds how many are done and what is left, as a line of its own: the items draw bars.

    Args: as of `track`. Nothing is told before the first item is done: there is nothing to reckon with.
    """
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= LINE_EVERY_S:
            last = now
            left = (now - start) / done * (total - done)
            say(f"{name}: {done} of {total} {unit}s done, about {tqdm.format_interval(left)} left")
        yield item


def say(line: str) -> None:
    """One plain line for people on standard error (standard output is for results)."""
    print(line, file=sys.stderr, flush=True)
