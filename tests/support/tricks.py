"""Pieces of hosts, addresses and cookies by which one reader is made to see another thing than the next one does.

And readers as lenient as browsers are, to be told apart from ours, which are strict.
"""

from __future__ import annotations

import re

from hypothesis import strategies as st

SEPARATORS = ("/", "//", "\\", "/\\", "\\\\", ":", "@", "?", "#", "&", ";", ",", ".", "..", "%", "=")
SPACES = ("\t", "\n", "\r", "\r\n", " ", "\x00", "\x0b", "\x0c", "\x7f", "\xa0", "\xad")
ENCODED = ("%2e", "%2E", "%2f", "%5c", "%09", "%00", "%40", "%3a", "%23", "%25", "%252e", "%u002e", "%e3%80%82")
DOTS = ("\N{IDEOGRAPHIC FULL STOP}", "\N{FULLWIDTH FULL STOP}", "\N{HALFWIDTH IDEOGRAPHIC FULL STOP}")
LOOKALIKES = (
    "\N{KELVIN SIGN}",
    "\N{CYRILLIC SMALL LETTER A}",
    "\N{FULLWIDTH SOLIDUS}",
    "\N{LATIN SMALL LETTER SHARP S}",
)
IDNA = ("xn--", "xn--connect-", "xn--a-ecp.ru", "faß.de")
SCHEMES = ("http:", "https:", "HTTP://", "javascript:", "data:", "//", "http:/", "http:\\\\")
FOREIGN = ("evil.example", "EVIL.example", "[::1]", "127.0.0.1", "0x7f.1", "user:pw@evil.example", "localhost")

TRICKS = SEPARATORS + SPACES + ENCODED + DOTS + LOOKALIKES + IDNA + SCHEMES + FOREIGN


def spellings(*ours: str) -> st.SearchStrategy[str]:
    """Texts made of tricks and of our own names, whole, in another case and in pieces."""
    pieces = [piece for name in ours for piece in (name, name.upper(), name.title(), *re.split(r"(?<=[.:])", name))]
    return st.lists(st.sampled_from((*TRICKS, *filter(None, pieces), *ours, *ours)), max_size=6).map("".join)


def as_bytes(text: str) -> bytes:
    """As it stands in a request: what is not Latin is UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def host_for_browsers(url: str) -> str:
    """The host to which browsers take an address with a scheme of http (WHATWG URL): they drop tabs and line ends, trim
    control characters, take "\\" for "/" and any number of both, and "@" ends user information."""
    text = re.sub(r"[\t\n\r]", "", url).strip("".join(map(chr, range(33)))).replace("\\", "/")
    authority = re.sub(r"^[A-Za-z]+:/*", "", text)
    return re.split(r"[/?#]", authority)[0].rpartition("@")[2].partition(":")[0].lower()


def cookies_for_browsers(line: str) -> tuple[str, str, set[str]] | None:
    """Name, value and names of attributes of a Set-Cookie line as browsers keep it (RFC 6265bis, section 5.6)."""
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line):
        return None
    pair, *attributes = line.split(";")
    name, equals, value = pair.partition("=")
    if not equals:
        name, value = "", pair
    kept = {each.partition("=")[0].strip(" \t").lower() for each in attributes}
    return name.strip(" \t"), value.strip(" \t"), kept
