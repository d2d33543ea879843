"""The integrated web- and file-server: the tool of a Studio that has no other.

| request | does |
|---|---|
| GET folder/ | page with the listing; `?sort=name|size|modified`, `&descending`; `?delete` asks before deleting |
| GET file | the file itself, Range allowed; `?view` a page with a preview; `?download` to be saved; `?delete` asks |
| PUT file | store the body; 409 if the name is taken, unless `?overwrite=1` |
| POST folder/?upload | the same from a form without JavaScript |
| POST folder/?new | create the folder `name` of the form |
| POST file or folder/ ?delete, DELETE | delete a file, a link or an empty folder |

Every link in a page is relative, so that pages work under any prefix.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs

import trio
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from connect_trio.agent.files.downloads import send_file
from connect_trio.agent.files.exchange import Disconnected, Exchange
from connect_trio.agent.files.forms import receive_form
from connect_trio.agent.files.guard import check_same_origin
from connect_trio.agent.files.pages import deletion_page, listing_page, preview_page, problem_page
from connect_trio.agent.files.paths import Folder, RequestPath, check_name, parse_path, quote_name
from connect_trio.agent.files.problems import Problem, from_os_error
from connect_trio.agent.files.uploads import receive_file
from connect_trio.asgi import serve_app

MAX_FORM_SIZE = 64 * 1024

logger = logging.getLogger(__name__)


async def serve_files(
    root: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    path_prefix: str = "",
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the folder `root` until cancelled; started with the port.

    path_prefix: what paths may begin with, like "/_studio/a23ce7967": what is below it is found without it, too.
    Raises OSError if the folder or the port is not to be had.
    """
    with Folder(root) as folder:
        app = FilesApp(folder, path_prefix=path_prefix)
        await serve_app(app, host=host, port=port, task_status=task_status)


class FilesApp:
    """The ASGI application."""

    def __init__(self, folder: Folder, *, path_prefix: str = "") -> None:
        self._folder = folder
        self._prefix = path_prefix.rstrip("/").encode("ascii")
        self._methods: dict[str, Callable[[Exchange, RequestPath], Awaitable[None]]] = {
            "GET": self._get,
            "HEAD": self._get,
            "PUT": self._put,
            "POST": self._post,
            "DELETE": self._delete,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # A WebSocket: the server turns this into a 403.
            await send({"type": "websocket.close"})
            return
        await self._serve(Exchange(scope, receive, send))

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._dispatch(exchange)
            return
        except Disconnected:
            logger.debug("%s %r: the client went away", exchange.request.method, exchange.raw_path)
            return
        except Problem as exc:
            problem = exc
        except OSError as exc:
            problem = from_os_error(exc)
        except Exception:
            logger.exception("%s %r failed", exchange.request.method, exchange.raw_path)
            problem = Problem(500, "The file-server made a mistake; its log has the details.")
        if exchange.started:
            await exchange.abort()
        with suppress(Disconnected):
            await exchange.answer(_refusal(exchange, problem))

    async def _dispatch(self, exchange: Exchange) -> None:
        method = exchange.request.method
        handler = self._methods.get(method)
        if handler is None:
            allowed = {"allow": ", ".join(self._methods)}
            await exchange.answer(JSONResponse({"error": f"{method} is not supported."}, 405, headers=allowed))
            return
        if self._prefix and exchange.raw_path == self._prefix:
            await exchange.answer(_moved("./" + self._prefix.rpartition(b"/")[2].decode() + "/"))
            return
        # Below the prefix on Connect's own host, without it on the Studio's.
        path = parse_path(exchange.raw_path, prefix=self._prefix) or parse_path(exchange.raw_path)
        if path is None:
            raise Problem(404, "This file-server has no such address.")
        await handler(exchange, path)

    async def _get(self, exchange: Exchange, path: RequestPath) -> None:
        await exchange.discard_body()
        query = exchange.request.query_params
        if "delete" in query and path.parts:
            await exchange.answer(await trio.to_thread.run_sync(deletion_page, self._folder, path))
        elif await trio.to_thread.run_sync(self._is_folder, path.parts) != path.is_folder:
            # A folder's relative links need the slash at its end, and a file must not have one.
            name = quote_name(path.name)
            await exchange.answer(_moved(f"../{name}" if path.is_folder else f"./{name}/"))
        elif path.is_folder:
            order = query.get("sort", "name"), "descending" in query
            await exchange.answer(await trio.to_thread.run_sync(listing_page, self._folder, path, *order))
        elif "view" in query:
            await exchange.answer(await trio.to_thread.run_sync(preview_page, self._folder, path))
        else:
            await send_file(exchange, self._folder, path.parts)

    async def _put(self, exchange: Exchange, path: RequestPath) -> None:
        check_same_origin(exchange.request.headers)
        if path.is_folder:
            raise Problem(400, "An upload needs a file name at the end of its address.")
        if "content-range" in exchange.request.headers:
            # RFC 9110 section 14.4: a part must never be taken for the whole.
            raise Problem(400, "Uploading a part of a file is not supported.")
        overwrite = exchange.request.query_params.get("overwrite") == "1"
        replaced = await receive_file(self._folder, path.parts, exchange.body, overwrite=overwrite)
        await exchange.answer(Response(status_code=204 if replaced else 201))

    async def _post(self, exchange: Exchange, path: RequestPath) -> None:
        check_same_origin(exchange.request.headers)
        query = exchange.request.query_params
        if "delete" in query:
            await trio.to_thread.run_sync(self._remove, path)
            await exchange.answer(_see_other("../" if path.is_folder else "./"))
        elif "new" in query and path.is_folder:
            form = parse_qs((await exchange.body.read(MAX_FORM_SIZE)).decode("ascii", "replace"))
            name = os.fsencode(form.get("name", [""])[0].strip())
            check_name(name)
            await trio.to_thread.run_sync(self._create_folder, [*path.parts, name])
            await exchange.answer(_see_other("./"))
        elif "upload" in query and path.is_folder:
            await receive_form(self._folder, path.parts, exchange)
            await exchange.answer(_see_other("./"))
        else:
            raise Problem(400, "This form asks for nothing that the file-server does.")

    async def _delete(self, exchange: Exchange, path: RequestPath) -> None:
        check_same_origin(exchange.request.headers)
        await trio.to_thread.run_sync(self._remove, path)
        await exchange.answer(Response(status_code=204))

    def _is_folder(self, parts: Sequence[bytes]) -> bool:
        with self._folder.locate(parts) as place:
            if place.status is None:
                raise Problem(404, "There is no file or folder of this name.")
            return place.is_folder

    def _create_folder(self, parts: Sequence[bytes]) -> None:
        with self._folder.locate(parts, follow=False) as place:
            os.mkdir(place.name, dir_fd=place.directory)

    def _remove(self, path: RequestPath) -> None:
        """Delete a file, an empty folder, or a link itself."""
        if not path.parts:
            raise Problem(403, "The folder that the Studio shows cannot be deleted.")
        with self._folder.locate(path.parts, follow=False) as place:
            if place.is_folder:
                os.rmdir(place.name, dir_fd=place.directory)
            else:
                os.unlink(place.name, dir_fd=place.directory)


def _refusal(exchange: Exchange, problem: Problem) -> Response:
    if exchange.wants_page:
        return problem_page(problem)
    return JSONResponse({"error": problem.text}, problem.status)


def _moved(location: str) -> Response:
    """To the same thing under its right name. Relative, so it cannot lead to another site."""
    return Response(status_code=307, headers={"location": location, "cache-control": "no-store"})


def _see_other(location: str) -> Response:
    return Response(status_code=303, headers={"location": location})
