"""A Platform that is held to its contract, and docs/platform-api.yaml to hold it to.

CONNECT_TEST_PLATFORM names a JSON file that describes another Platform than the development one: the fields of
`Facts`; those with a default may be left out, and what needs them is skipped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import httpx2
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator.readers import read_from_filename
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from connect_trio.devplatform.studios import StudioPolicy
from tests.support.platform import DEV_KEY, PRIVATE, SHARED, RunningPlatform, register, running_platform

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "platform-api.yaml"
VARIABLE = "CONNECT_TEST_PLATFORM"
UNKNOWN = "00000000"
_URI = "urn:platform-api"

# A key that nobody has: its private part was never made.
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


@attrs.frozen(kw_only=True)
class Facts:
    """What is so at the Platform under test.

    url: PLATFORM_URL. session: one that runs, and has an end. subject: of somebody who may open it, and extend it.
    stranger: of somebody who may not open it. private: a session that `subject` may open, `stranger` may not, and
    `other`, who may open `session`, may not either. viewer: somebody with the role View in the workspace of `session`.
    closed: a session in a workspace that may not use Studios. username, ssh_key: of `subject`, as in a .pub file.
    agent_token: of an agent of `session`. path_routing: what Platform is set to.
    """

    url: str
    client_id: str
    client_secret: str = attrs.field(repr=False)
    session: str
    subject: str
    stranger: str
    private: str | None = None
    other: str | None = None
    viewer: str | None = None
    closed: str | None = None
    username: str | None = None
    ssh_key: str | None = None
    agent_token: str | None = attrs.field(default=None, repr=False)
    issuer: str | None = None
    path_routing: bool = False


@asynccontextmanager
async def platform_under_test() -> AsyncIterator[Facts]:
    """The development Platform, or the one that CONNECT_TEST_PLATFORM describes."""
    path = os.environ.get(VARIABLE)
    if path:
        yield Facts(**json.loads(Path(path).read_text("utf-8")))
        return
    async with running_platform(policy=_POLICY) as platform, platform.browser() as http:
        yield await _prepared(platform, http)


_POLICY = StudioPolicy(allowed_workspaces=(1,))


async def _prepared(platform: RunningPlatform, http: httpx2.AsyncClient) -> Facts:
    client = await register(http)
    bearer = {"authorization": f"Bearer {DEV_KEY}"}
    answer = await http.post("/api/dev/users/alice/ssh-keys", json={"key": SSH_KEY}, headers=bearer)
    assert answer.status_code == 200
    return Facts(
        url=platform.url,
        client_id=client["client_id"],
        client_secret=client["client_secret"],
        session=SHARED,
        subject="user-5d1f0a9c",
        stranger="user-f39b7c25",
        private=PRIVATE,
        other="user-c27e83b4",
        viewer="user-8a40e6d1",
        closed="7be1d004",
        username="alice",
        ssh_key=SSH_KEY,
        agent_token=await platform.agent_token(SHARED),
        issuer=platform.issuer,
    )


@cache
def specification() -> Mapping[str, Any]:
    document, _ = read_from_filename(str(DOCUMENT))
    return document


@cache
def validator(pointer: str) -> Draft202012Validator:
    """For what the JSON pointer names in the document."""
    resource = Resource.from_contents(specification(), default_specification=DRAFT202012)
    registry: Registry[Mapping[str, Any]] = Registry().with_resource(_URI, resource)
    return Draft202012Validator({"$ref": f"{_URI}#{pointer}"}, registry=registry)


def problems(pointer: str, value: object) -> list[str]:
    """What is wrong with a value, by the schema at this pointer."""
    return [f"{error.json_path}: {error.message}" for error in validator(pointer).iter_errors(value)]


@attrs.frozen
class Caller:
    """Calls as Connect makes them; every request and every answer is judged by the document."""

    facts: Facts
    http: httpx2.AsyncClient

    async def call(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        document: object = None,
        auth: tuple[str, str] | None = None,
        authenticated: bool = True,
        proper: bool = True,
        **values: str,
    ) -> Any:
        """The answer's JSON, which must have this status. path: as in the document, `values` fill it in and what is
        left of them is the query. proper: whether the request is one that the document permits."""
        operation = f"/paths/{path.replace('~', '~0').replace('/', '~1')}/{method.lower()}"
        if document is not None:
            wrong = problems(f"{operation}/requestBody/content/application~1json/schema", document)
            assert bool(wrong) is not proper, (wrong, document)
        query = {name: value for name, value in values.items() if f"{{{name}}}" not in path}
        answer = await self.http.request(
            method,
            self.facts.url + "/api" + path.format(**values),
            json=document,
            params=query,
            auth=(auth or (self.facts.client_id, self.facts.client_secret)) if authenticated else None,
        )
        assert answer.status_code == status, answer.text
        wrong = problems(_schema_of(operation, status), answer.json())
        assert not wrong, (wrong, answer.text)
        assert "no-store" in answer.headers.get("cache-control", "") or path.startswith("/.well-known")
        return answer.json()


def _schema_of(operation: str, status: int) -> str:
    """Where the schema of an answer is; answers that operations share are in the components."""
    node: Any = specification()
    for part in operation.strip("/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    response = node["responses"][str(status)]
    where = response["$ref"][1:] if "$ref" in response else f"{operation}/responses/{status}"
    return f"{where}/content/application~1json/schema"


@asynccontextmanager
async def calling(facts: Facts) -> AsyncIterator[Caller]:
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        yield Caller(facts, http)


def visit(facts: Facts, **changes: object) -> dict[str, object]:
    now = time.time()
    return {
        "session": facts.session,
        "subject": facts.subject,
        "connected_at": now - 10,
        "last_active": now,
        "disconnected_at": None,
        **changes,
    }
