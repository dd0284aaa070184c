"""What is done side by side, and ended together.

Knows asyncio, and that what is cancelled need not end by it; what is done, it does not know.
"""

import asyncio
from collections.abc import Collection, Coroutine
from contextlib import suppress
from typing import Any

CANCEL_AGAIN_SECONDS = 0.2
"""How long what is cancelled may take before it is again. That may get lost: nats-py catches it at
times, and so does ``wait_for`` of Python 3.11."""


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Do all of it until one part fails, or all are cancelled; none goes on after that.

    Not by a ``TaskGroup``: Python 3.11's forgets that it was cancelled if a part fails just then.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await end(tasks)


async def end(tasks: Collection[asyncio.Future[None]]) -> None:
    """Cancel tasks until all have ended."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        # Who cancels this one does so again.
        with suppress(asyncio.CancelledError):
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # or asyncio would tell that nobody has looked at it
