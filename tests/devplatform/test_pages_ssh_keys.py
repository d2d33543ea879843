"""The page of SSH keys: everybody sees and changes their own, by forms of that page only."""

from __future__ import annotations

import re

import httpx2
import pytest

from tests.devplatform.test_ssh_keys import line
from tests.support.platform import RunningPlatform, log_in

PAGE = "/ssh-keys"


async def page_of(http: httpx2.AsyncClient) -> str:
    answer = await http.get(PAGE)
    assert answer.status_code == 200
    return answer.text


async def send(http: httpx2.AsyncClient, path: str = PAGE, **fields: str) -> httpx2.Response:
    """A form of the page, with its token unless `fields` has another one."""
    token = re.search(r'name="form_token" value="([^"]+)"', await page_of(http))
    assert token is not None
    return await http.post(path, data={"form_token": token[1], **fields})


def shown(page: str) -> list[str]:
    """Fingerprints."""
    return sorted(set(re.findall(r"SHA256:[A-Za-z0-9+/]+", page)))


async def test_a_stranger_is_sent_to_the_login_and_changes_nothing(http: httpx2.AsyncClient) -> None:
    assert (await http.get(PAGE)).headers["location"].endswith("/login")
    for path in (PAGE, PAGE + "/remove"):
        assert (await http.post(path, data={"key": line(), "form_token": "x"})).status_code == 403


async def test_a_key_is_added_shown_and_removed(http: httpx2.AsyncClient) -> None:
    await log_in(http, "alice")
    answer = await send(http, key=line(1, "me@laptop"))
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    page = await page_of(http)
    (fingerprint,) = shown(page)
    assert "me@laptop" in page
    assert (await send(http, PAGE + "/remove", fingerprint=fingerprint)).status_code == 303
    assert shown(await page_of(http)) == []


async def test_nobody_sees_or_removes_keys_of_others(platform: RunningPlatform, http: httpx2.AsyncClient) -> None:
    await log_in(http, "alice")
    await send(http, key=line(1))
    (fingerprint,) = shown(await page_of(http))
    async with platform.browser() as other:
        await log_in(other, "bob")
        assert shown(await page_of(other)) == []
        await send(other, PAGE + "/remove", fingerprint=fingerprint)
    assert shown(await page_of(http)) == [fingerprint]


@pytest.mark.parametrize("path", [PAGE, PAGE + "/remove"])
async def test_a_form_of_another_page_changes_nothing(http: httpx2.AsyncClient, path: str) -> None:
    await log_in(http, "alice")
    await send(http, key=line(1))
    (fingerprint,) = shown(await page_of(http))
    answer = await send(http, path, key=line(2), fingerprint=fingerprint, form_token="x" * 43)
    assert answer.status_code == 403
    assert shown(await page_of(http)) == [fingerprint]


@pytest.mark.parametrize(
    ("key", "advice"), [("", "one line"), ("ssh-ed25519 AAAA", "too short"), ("x y", "ssh-keygen")]
)
async def test_what_is_no_key_is_refused_on_the_page_with_what_mends_it(
    http: httpx2.AsyncClient, key: str, advice: str
) -> None:
    await log_in(http, "alice")
    answer = await send(http, key=key)
    assert answer.status_code == 400
    assert advice in answer.text
    assert shown(answer.text) == []


async def test_a_comment_is_text(http: httpx2.AsyncClient) -> None:
    await log_in(http, "alice")
    await send(http, key=line(1, "<script>alert(1)</script>"))
    page = await page_of(http)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
