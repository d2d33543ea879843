"""Uploads by a form without JavaScript: multipart/form-data (RFC 7578), streamed to disk like every other upload."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs
import trio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from connect_trio.agent.files.exchange import Exchange, RequestBody
from connect_trio.agent.files.paths import Folder, check_name
from connect_trio.agent.files.problems import Problem
from connect_trio.agent.files.uploads import open_upload


@attrs.frozen
class Part:
    """The head of one field. filename: empty if the field is no file, or if no file was chosen."""

    field: bytes
    filename: bytes


@attrs.frozen
class PartEnd:
    """The field is complete."""


async def receive_form(folder: Folder, parts: Sequence[bytes], exchange: Exchange) -> None:
    """Store each file of the form in the folder at `parts`; a field `overwrite` allows it to what comes after it.

    Raises Problem, OSError and Disconnected. Files that were complete by then stay.
    """
    kind, options = parse_options_header(exchange.request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(400, "This form is not multipart/form-data.")
    reader = FormReader(options[b"boundary"], exchange.body)
    overwrite = False
    count = 0
    while (event := await reader.next()) is not None:
        if not isinstance(event, Part):
            continue
        if event.filename:
            check_name(event.filename)
            async with open_upload(folder, [*parts, event.filename], overwrite=overwrite) as partial_file:
                while isinstance(block := await reader.next(), bytes):
                    await trio.to_thread.run_sync(partial_file.write, block)
                if block is None:
                    raise _malformed("it ends in the middle of a file")
                await trio.to_thread.run_sync(partial_file.commit)
            count += 1
        overwrite = overwrite or event.field == b"overwrite"
    if not count:
        raise Problem(400, "No file was chosen.")


class FormReader:
    """The parts of a form, one event after the other; holds the events of one block at most."""

    def __init__(self, boundary: bytes, body: RequestBody) -> None:
        self._body = body
        self._events: deque[Part | bytes | PartEnd] = deque()
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
                    "on_part_end": lambda: self._events.append(PartEnd()),
                },
            )
        except FormParserError as exc:
            raise _malformed(str(exc)) from exc

    async def next(self) -> Part | bytes | PartEnd | None:
        """The head of a part, then its data in pieces, then its end; None at the end of the form."""
        while not self._events:
            block = await self._body.read_block()
            if not block:
                return None
            try:
                self._parser.write(bytes(block))
            except FormParserError as exc:
                raise _malformed(str(exc)) from exc
        return self._events.popleft()

    def _begin_part(self) -> None:
        self._disposition = b""

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._events.append(Part(options.get(b"name", b""), options.get(b"filename", b"")))


def _malformed(why: str) -> Problem:
    return Problem(400, f"This form cannot be read: {why}.")
