"""Bodies of requests."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.types import Message

from connect_trio.devplatform.forms import Refusal, read_json


async def test_who_leaves_before_the_body_is_whole_is_no_error_of_ours() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    with pytest.raises(Refusal, match="not whole"):
        await read_json(Request({"type": "http", "method": "POST", "headers": []}, receive))
