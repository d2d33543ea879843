"""Agents' tokens in development, asked of the development Platform and kept in the files that agents read; and the SSH
keys of alice, which it is told."""

from __future__ import annotations

import logging

import trio

from connect_trio.identity.client import PlatformClient, PlatformUnavailable, open_platform_client
from connect_trio.roles.dev_plan import CannotRun, Plan
from connect_trio.roles.dev_report import replace_file

RENEW = 24 * 3600.0
"""Seconds after which tokens are asked for again; Platform's live for a week."""

SSH_USER = "alice"

_AGAIN = 60.0
_ANSWER = 5.0

logger = logging.getLogger(__name__)


async def keep_tokens(plan: Plan, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Write each agent's token file, then again every day. Starts when all are there. Raises CannotRun until then."""
    await write_tokens(plan)
    task_status.started()
    pause = RENEW
    while True:
        await trio.sleep(pause)
        try:
            await write_tokens(plan)
            pause = RENEW
        except CannotRun as exc:
            logger.warning("agents' tokens are not renewed yet", extra={"reason": str(exc)})
            pause = _AGAIN


async def write_tokens(plan: Plan) -> None:
    """Ask for a token for each session and write it to `plan.token_file`; tell SSH keys. Raises CannotRun."""
    async with open_platform_client(platform_url=plan.platform_url) as client:
        for studio in plan.studios:
            url = f"{plan.platform_url}/api/dev/agent-tokens"
            try:
                answer = await client.call(
                    "POST", url, timeout=_ANSWER, document={"session": studio.id}, bearer=plan.dev_key
                )
            except PlatformUnavailable as exc:
                raise CannotRun(f"no agent token from {plan.platform_url}: {exc}") from exc
            token = answer.document.get("token") if isinstance(answer.document, dict) else None
            if answer.status != 200 or not isinstance(token, str):
                raise CannotRun(f"no agent token from {plan.platform_url}: it answered with status {answer.status}")
            replace_file(plan.token_file(studio), token)
        await _tell_keys(plan, client)


async def _tell_keys(plan: Plan, client: PlatformClient) -> None:
    """A key that Platform does not take is told of, and ends nothing. Raises CannotRun."""
    url = f"{plan.platform_url}/api/dev/users/{SSH_USER}/ssh-keys"
    for line in plan.ssh_users_keys:
        try:
            answer = await client.call("POST", url, timeout=_ANSWER, document={"key": line}, bearer=plan.dev_key)
        except PlatformUnavailable as exc:
            raise CannotRun(f"no SSH keys for {plan.platform_url}: {exc}") from exc
        if answer.status != 200:
            logger.warning("Platform does not take an SSH key", extra={"line": line[:60], "status": answer.status})
