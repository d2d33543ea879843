"""The pages. Everything that comes from the disk or a request is escaped by the templates."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from importlib.resources import files

import attrs
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from connect_trio.agent.files.content import IMAGE_TYPES, decode_text, media_type, show_size
from connect_trio.agent.files.listing import Entry, Kind, read_listing, sort_entries
from connect_trio.agent.files.paths import Folder, RequestPath, quote_name, show_name
from connect_trio.agent.files.problems import Problem

MAX_ENTRIES = 5_000
"""Entries of a folder that its listing shows; the rest is only said to exist."""
PREVIEW_SIZE = 256 * 1024
"""Bytes of a text that its preview shows."""

_static = files(__package__) / "static"
_STYLE = (_static / "files.css").read_text(encoding="utf-8")
_SCRIPT = (_static / "files.js").read_text(encoding="utf-8")


def _source(inline: str) -> str:
    """An inline style or script as a source expression (CSP level 3): by its digest."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


_HEADERS = {
    # Only our own style and script work, even if something slipped through the escaping.
    "content-security-policy": f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_templates = Environment(
    loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
# Ours, and without markup of their own: the only text that is not escaped.
_templates.globals.update(style=Markup(_STYLE), script=Markup(_SCRIPT))  # noqa: S704


@attrs.frozen
class Row:
    """An entry as its line in the listing shows it."""

    name: str
    url: str
    kind: str
    note: str
    size: str
    modified: str
    """In UTC, as the `datetime` attribute of a <time> wants it; empty if it is out of all bounds."""


def listing_page(folder: Folder, path: RequestPath, order: str, descending: bool) -> Response:
    """What is in a folder. Blocks on the disk. Raises OSError and Problem."""
    listing = read_listing(folder, path.parts, limit=MAX_ENTRIES)
    entries = sort_entries(listing.entries, order, descending=descending)
    return _page(
        "listing.html",
        title=show_name(path.name) or "Files",
        crumbs=_crumbs(path),
        rows=[_row(entry) for entry in entries],
        limit=None if listing.complete else f"{MAX_ENTRIES:,}",
        order=order,
        descending=descending,
        top=not path.parts,
    )


def preview_page(folder: Folder, path: RequestPath) -> Response:
    """A file as far as it can be shown. Blocks on the disk. Raises OSError and Problem."""
    with folder.locate(path.parts) as place:
        descriptor, status = place.open_file()
    with open(descriptor, "rb") as file:
        start = file.read(PREVIEW_SIZE)
    complete = status.st_size <= len(start)
    is_image = media_type(path.name) in IMAGE_TYPES
    return _page(
        "preview.html",
        title=show_name(path.name),
        crumbs=_crumbs(path),
        url="./" + quote_name(path.name),
        size=show_size(status.st_size),
        modified=_timestamp(status.st_mtime),
        image=is_image,
        text=None if is_image else decode_text(start, complete=complete),
        limit=None if complete else show_size(PREVIEW_SIZE),
        openable=media_type(path.name).startswith(("application/pdf", "text/html", "audio/", "video/")),
    )


def deletion_page(folder: Folder, path: RequestPath) -> Response:
    """Asks whether to delete. Blocks on the disk. Raises OSError and Problem."""
    with folder.locate(path.parts, follow=False) as place:
        if place.status is None:
            raise Problem(404, "There is no file or folder of this name.")
        kind = "folder" if place.is_folder else "file"
    back = "../" if path.is_folder else "./"
    return _page("deletion.html", title="Delete", name=show_name(path.name), kind=kind, back=back)


def problem_page(problem: Problem) -> Response:
    """What went wrong, for a person."""
    return _page("problem.html", problem.status, title="This did not work", text=problem.text)


def _page(template: str, status: int = 200, **values: object) -> Response:
    return HTMLResponse(_templates.get_template(template).render(values), status, headers=_HEADERS)


def _crumbs(path: RequestPath) -> list[tuple[str, str]]:
    """(name, relative URL) of every folder on the way, the served one first, the one that is shown last."""
    folders = path.parts if path.is_folder else path.parts[:-1]
    names = ["Files", *map(show_name, folders)]
    return [(name, "../" * (len(folders) - depth) or "./") for depth, name in enumerate(names)]


def _row(entry: Entry) -> Row:
    leads_somewhere = entry.kind in (Kind.FILE, Kind.FOLDER)
    return Row(
        name=show_name(entry.name),
        # "./" because a name with a colon would look like a scheme.
        url="./" + quote_name(entry.name) + ("/" if entry.kind is Kind.FOLDER else ""),
        kind=entry.kind.name.lower(),
        note="" if leads_somewhere else entry.kind.value,
        size=show_size(entry.size) if entry.kind is Kind.FILE else "",
        modified=_timestamp(entry.modified),
    )


def _timestamp(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return ""
