"""What synchronous calls start, done in the background of the loop.

Works of one key are done one after the other, in the order in which they were started; those of different keys side by
side. Where no loop runs yet they wait for the first call that finds one.
"""
from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Hashable
from typing import Any

logger = logging.getLogger(__name__)


class GivenUp(Exception):
    """It was not done because its coordinator or registry was closed, or the loop ended."""


class Started:
    """One work that was started. Awaiting it is optional: it waits for the end and raises what went wrong."""

    def __init__(self, background: Background, work: Callable[[], Coroutine[Any, Any, None]], what: str) -> None:
        self.what = what
        self.error: Exception | None = None
        self._background = background
        self._work = work
        self._done = asyncio.Event()

    async def run(self) -> None:
        try:
            await self._work()
        except Exception as error:
            self.error = error
            logger.warning("%s: %s", self.what, error)
        except asyncio.CancelledError:
            self.give_up()
            raise
        finally:
            self._done.set()

    def give_up(self) -> None:
        self.error = self.error or GivenUp(f"{self.what}: given up")
        self._done.set()

    async def wait(self) -> None:
        """Until it is done, however that ends."""
        self._background.wake()
        await self._done.wait()

    def __await__(self) -> Generator[Any, None, None]:
        yield from self.wait().__await__()
        if self.error is not None:
            raise self.error


class Background:
    """The works of one coordinator or registry."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Started]] = {}
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def start(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, None]], what: str) -> Started:
        """Do `work` as soon as what was started for `key` before is done. `what` it was stands in the log when it fails."""
        started = Started(self, work, what)
        self._waiting.setdefault(key, deque()).append(started)
        self.wake()
        return started

    def is_busy(self, key: Hashable) -> bool:
        """Whether something was started for `key` and is not done."""
        return key in self._waiting

    def wake(self) -> None:
        """Begin what found no loop when it was started."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        for key in self._waiting:
            if key not in self._tasks:
                self._tasks[key] = loop.create_task(self._run(key))

    async def _run(self, key: Hashable) -> None:
        waiting = self._waiting[key]
        try:
            while waiting:
                await waiting[0].run()
                waiting.popleft()
        finally:
            for started in waiting:
                started.give_up()
            del self._waiting[key], self._tasks[key]

    async def flush(self) -> None:
        """Wait until all that was started by now is done."""
        for started in [each for waiting in self._waiting.values() for each in waiting]:
            await started.wait()

    async def cancel(self) -> None:
        """Give up what is not done."""
        await asyncio.sleep(0)  # so that each has begun, and ends by itself
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
