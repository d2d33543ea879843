"""A log record is one printable line, bounded, with the facts at its end and no secret in it."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from connect_trio import logs
from connect_trio.context import serving

logger = logging.getLogger("connect_trio.test")


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What is logged at level INFO by the role "proxy" that knows one secret; earlier logging is restored after."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []
    stream = io.StringIO()
    logs.configure("INFO", role="proxy", secrets=["hunter2-hunter2", None, "ab"], stream=stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(level)


def test_a_record_is_one_line_with_time_level_role_logger_message_and_facts(output: io.StringIO) -> None:
    logger.warning("tunnel %s lost", 7, extra={"session": "23ce7967", "reason": "peer went away", "slot": 0})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARN  proxy connect_trio\.test: tunnel 7 lost"
        r' session=23ce7967 reason="peer went away" slot=0\n',
        output.getvalue(),
    )


def test_the_level_decides_what_is_seen(output: io.StringIO) -> None:
    logger.debug("not seen")
    logging.getLogger("httpx2").info("not seen either")
    logger.info("seen")
    assert output.getvalue().count("\n") == 1
    assert "INFO  proxy connect_trio.test: seen" in output.getvalue()


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="not a log level"):
        logs.configure("LOUD", role="proxy")


async def test_lines_carry_the_connection_of_their_task(output: io.StringIO) -> None:
    async def visitor(connection: str) -> None:
        with serving(connection):
            await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.checkpoint)
                logger.info("serving", extra={"own": connection})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(visitor, "c1")
        nursery.start_soon(visitor, "c2")
    logger.info("outside")
    assert sorted(line.partition("serving ")[2] for line in output.getvalue().splitlines()[:2]) == [
        "conn=c1 own=c1",
        "conn=c2 own=c2",
    ]
    assert "conn=" not in output.getvalue().splitlines()[2]


def test_what_a_peer_sends_cannot_forge_a_line_or_fill_the_disk(output: io.StringIO) -> None:
    logger.info(
        "host %s", "a\n2030-01-01 INFO forged\x1b[2J\u2028\x85", extra={"path": '/"\r\n x=y', "long": "z" * 9999}
    )
    logger.info("y" * 9999)
    lines = output.getvalue().split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert r"host a\n2030-01-01 INFO forged\x1b[2J\u2028\x85" in lines[0]
    assert r'path="/\"\r\n x=y"' in lines[0]
    assert all(len(line) < 2 * logs.MESSAGE_LIMIT for line in lines)


@given(st.text())
def test_any_text_becomes_one_bounded_printable_line(text: str) -> None:
    shown = logs.printable(text, 20)
    assert shown.isprintable()
    assert len(shown) <= 20 * len(r"\U0010ffff") + 1
    if text.isprintable() and len(text) <= 20:
        assert shown == text


def test_an_exception_stays_on_the_line(output: io.StringIO) -> None:
    try:
        raise RuntimeError("broken\nin two lines, password=hunter2-hunter2")
    except RuntimeError:
        logger.exception("it failed")
    (line,) = output.getvalue().splitlines()
    assert line.isprintable()
    assert "RuntimeError: broken\\nin two lines" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter2.abc-def",
        "authorization: basic aHVudGVyMg==hunter2",
        "GET /cb?code=hunter2&state=hunter2",
        "redis://user:hunter2@redis:6379",
        "redis://:hunter2@redis:6379",
        "token=hunter2",
        "the key hunter2-hunter2 itself",
        "jwt eyJhunter2.eyJhunter2.hunter2",
    ],
)
def test_secrets_in_messages_and_values_are_masked(output: io.StringIO, text: str) -> None:
    logger.info("%s", text, extra={"header": text})
    assert output.getvalue().count("***") >= 2
    assert "hunter2" not in output.getvalue()


def test_facts_named_like_secrets_are_masked(output: io.StringIO) -> None:
    names = ["token", "client_secret", "password", "authorization", "set_cookie", "auth_key", "code"]
    logger.info("x", extra=dict.fromkeys(names, "hunter2"))
    assert "hunter2" not in output.getvalue()
    assert output.getvalue().count("=***") == len(names)


def test_the_fingerprint_of_a_public_key_is_no_secret(output: io.StringIO) -> None:
    """Whoever looks for who came in by SSH, and with which key, has nothing else."""
    fingerprint = "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"
    logger.info("ssh: logged in", extra={"key": fingerprint})
    assert output.getvalue().endswith(f"key={fingerprint}\n")
    for other in ("SHA256:short", fingerprint + "x", f"-{fingerprint}", "a-cluster-key"):
        logger.info("a key", extra={"key": other})
        assert output.getvalue().endswith("key=***\n")


def test_warnings_are_logged(output: io.StringIO) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "WARN  proxy py.warnings: " in output.getvalue()
