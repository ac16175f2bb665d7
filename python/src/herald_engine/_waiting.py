"""Calls that take long: a thread makes them, so that Ctrl-C and an event loop's cancel are seen at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Callable, TypeVar

T = TypeVar("T")


def interruptible(work: Callable[[], T], cancel: Callable[[], None], cancelled: Callable[[], object]) -> T:
    """Runs `work`. On the main thread Ctrl-C (or another signal's exception) calls `cancel`, and after it `cancelled`.

    A second Ctrl-C doesn't wait: what `work` uses must be its own until it returns.

    Python sees signals between two instructions of its main thread only, so that must not be in a long call itself.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    answers: list[T] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as failure:
            failures.append(failure)
        finally:
            done.set()

    threading.Thread(target=run, name="herald-call", daemon=True).start()
    try:
        done.wait()
    except BaseException:
        cancel()
        done.wait()
        cancelled()
        raise
    if failures:
        raise failures[0]
    return answers[0]


async def in_thread(work: Callable[[], T], cancel: Callable[[], None] = lambda: None) -> T:
    """Runs `work` in a thread of its own; a cancelled task calls `cancel`, and doesn't wait.

    The loop's own threads are few, and a generation would hold one up until its end.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(setter: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            setter(value)

    def run() -> None:
        setter: Callable[[Any], None]
        value: Any
        try:
            setter, value = future.set_result, work()
        except BaseException as failure:
            setter, value = future.set_exception, failure
        try:
            loop.call_soon_threadsafe(deliver, setter, value)
        except RuntimeError:
            # The loop is closed, and nobody waits.
            cancel()

    threading.Thread(target=run, name="herald-call", daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        cancel()
        raise
