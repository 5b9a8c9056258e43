"""Waiting takes as long as necessary, but not forever."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.support.until import auntil, until


async def number_three() -> int:
    return 3


class TestInPlainCode:
    def test_what_was_waited_for_is_returned(self) -> None:
        numbers = itertools.count()
        assert until(lambda: next(numbers), lambda number: number == 3, pause=0) == 3
        assert until(lambda: next(numbers)) == 4

    def test_what_was_seen_last_is_told_when_the_time_is_up(self) -> None:
        with pytest.raises(AssertionError, match=r"^it didn't come within 0.01 s; seen last: \[1, 2\]$"):
            until(lambda: [1, 2], lambda seen: len(seen) == 3, timeout=0.01)

    def test_of_a_long_text_the_end_is_told(self) -> None:
        with pytest.raises(AssertionError, match=r"seen last: \.\.\. x+the end$"):
            until(lambda: "x" * 5000 + "the end", lambda seen: False, timeout=0)


class TestInAnEventLoop:
    async def test_what_was_waited_for_is_returned(self) -> None:
        numbers = itertools.count()

        async def look() -> int:
            return next(numbers)

        assert await auntil(look, lambda number: number == 3, pause=0) == 3
        assert await auntil(lambda: next(numbers)) == 4

    async def test_what_was_seen_last_is_told_when_the_time_is_up(self) -> None:
        with pytest.raises(AssertionError, match=r"^it didn't come within 0.01 s; seen last: 3$"):
            await auntil(number_three, lambda seen: seen == 4, timeout=0.01)

    async def test_a_look_that_hangs_is_given_up(self) -> None:
        with pytest.raises(AssertionError, match=r"within 0.01 s; seen last: nothing$"):
            await auntil(lambda: asyncio.Event().wait(), timeout=0.01)

    async def test_a_time_out_of_what_is_looked_at_is_its_own(self) -> None:
        async def look() -> int:
            raise TimeoutError("of its own")

        with pytest.raises(TimeoutError, match="of its own"):
            await auntil(look)
