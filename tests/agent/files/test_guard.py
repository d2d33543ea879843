from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from connect_trio.agent.files.guard import check_same_origin
from connect_trio.agent.files.problems import Problem

HOST = {"host": "a1.connect.example:8080"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin", "origin": "http://elsewhere"},
        {"origin": "http://a1.connect.example:8080"},
        {"origin": "https://a1.public.example", "x-forwarded-host": "a1.public.example"},
    ],
)
def test_our_own_pages_and_programs_are_let_through(headers: dict[str, str]) -> None:
    check_same_origin(Headers(HOST | headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://[broken"},
        {"origin": "http://a1.connect.example"},
        {"origin": "http://a2.connect.example:8080"},
        {"origin": "http://a1.connect.example:8080.evil.example"},
    ],
)
def test_other_sites_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        check_same_origin(Headers(HOST | headers))
    assert caught.value.status == 403
