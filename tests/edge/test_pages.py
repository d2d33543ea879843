from __future__ import annotations

import json

import pytest

from connect_trio.edge.gate import Reply
from connect_trio.edge.pages import Problem, phrase, serialise


def test_a_page_says_what_failed_what_to_do_and_its_id() -> None:
    problem = Problem(status=504, part="tool", text="It did not answer.", id="0a0b0c0d")
    page = problem.reply(html=True).body.decode()
    for text in (
        "504 Gateway Timeout",
        "It did not answer.",
        "restart the Studio",
        "Failed part: tool",
        "id: 0a0b0c0d",
    ):
        assert text in page


def test_nothing_in_a_page_is_markup_of_somebody_else() -> None:
    problem = Problem(status=400, part="<i>", text='<script>alert("1")</script>', id="<b>")
    page = problem.reply(html=True).body
    assert b"<script" not in page
    assert b"<i>" not in page
    assert b"<b>" not in page


def test_json_has_the_same_facts() -> None:
    problem = Problem(status=502, part="agent", text="Weg. \u2603")
    assert json.loads(problem.reply(html=False).body) == {
        "error": {"status": 502, "part": "agent", "message": "Weg. \u2603", "id": problem.id}
    }


def test_ids_differ() -> None:
    assert Problem(status=500, part="proxy", text="").id != Problem(status=500, part="proxy", text="").id


def test_an_error_may_neither_be_stored_nor_run_anything() -> None:
    headers = dict(Problem(status=500, part="proxy", text="").reply(html=True).headers)
    assert headers[b"Cache-Control"] == b"no-store"
    assert headers[b"Content-Security-Policy"].startswith(b"default-src 'none'; style-src 'sha256-")


@pytest.mark.parametrize(("status", "method", "body"), [(200, b"GET", b"x"), (200, b"HEAD", b""), (304, b"GET", b"")])
def test_a_reply_has_a_body_only_where_it_may(status: int, method: bytes, body: bytes) -> None:
    head, _, found = serialise(Reply(status=status, body=b"x"), method=method, close=False).partition(b"\r\n\r\n")
    assert found == body
    assert (b"Content-Length: 1" in head) == (status == 200)
    assert b"Connection" not in head


def test_an_unknown_status_has_no_phrase() -> None:
    assert (phrase(404), phrase(299)) == ("Not Found", "")
