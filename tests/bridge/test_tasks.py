"""What is done side by side: none of it goes on alone."""

import asyncio

import pytest

from alphapulse_relay.bridge.tasks import together
from tests.bridge.joined import END


class TestTogether:
    def test_until_one_fails(self) -> None:
        ended: list[str] = []

        async def lasts() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("lasts")

        async def fails() -> None:
            await asyncio.sleep(0)
            raise OSError("no")

        async def nothing() -> None:
            pass

        with pytest.raises(OSError, match="no"):
            asyncio.run(together(lasts(), nothing(), fails(), lasts()))
        assert ended == ["lasts", "lasts"]

    def test_cancellation_that_gets_lost(self) -> None:
        lost = 0

        async def stubborn() -> None:
            nonlocal lost
            for _ in range(3):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    lost += 1
            await asyncio.sleep(60)

        async def go() -> None:
            task = asyncio.ensure_future(together(together(stubborn())))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=END)
            assert task.cancelled()
            assert len(asyncio.all_tasks()) == 1

        asyncio.run(go())
        assert lost == 3
