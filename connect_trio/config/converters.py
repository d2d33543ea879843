"""From the text of a variable to its value. Each raises ValueError: what is wrong, and how to mend it."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from connect_trio.routing import names
from connect_trio.routing.names import HostNames, join_address, split_address
from connect_trio.routing.registry import MAX_SLOTS
from connect_trio.transport.keyring import MAX_KEYS, check_text

Network = IPv4Network | IPv6Network

LOG_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")

# The spellings of Go's strconv.ParseBool, since operators know them from the variables' first home.
_TRUE = frozenset(["1", "t", "T", "TRUE", "true", "True"])
_FALSE = frozenset(["0", "f", "F", "FALSE", "false", "False"])

# The units of Go's time.ParseDuration.
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST = 10 * 366 * 24 * 3600.0

_SIZE_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(Ki|Mi|Gi|)B?")
_SMALLEST_SIZE, _LARGEST_SIZE = 1 << 20, 1 << 40

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")
_SHORT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_LONGEST_PREFIX = 200
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")
_PATH_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")


def text(value: str) -> str:
    """Any text without control characters."""
    if not value.isprintable():
        raise ValueError("has control characters; write one line of text")
    return value


def boolean(value: str) -> bool:
    """ "true", "false" and the other spellings of Go."""
    if value not in _TRUE | _FALSE:
        raise ValueError("not a boolean; write true or false")
    return value in _TRUE


def duration(value: str) -> float:
    """Seconds of a duration as Go writes it: "2m", "1m30s", "500ms", "1.5h", "0"."""
    if value == "0":
        return 0.0
    parts = list(_PART.finditer(value))
    if not parts or "".join(part[0] for part in parts) != value:
        raise ValueError("not a duration; write for example 500ms, 30s, 2m, 1m30s or 1.5h")
    seconds = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    if seconds > _LONGEST:
        raise ValueError("longer than ten years; write a shorter duration")
    return seconds


def positive_duration(value: str) -> float:
    """Like `duration`, but not zero."""
    seconds = duration(value)
    if not seconds:
        raise ValueError("must be longer than nothing; write for example 30s or 2m")
    return seconds


def duration_within(shortest: str, longest: str) -> Callable[[str], float]:
    """A converter for durations in a range, whose ends are written like the values."""

    def convert(value: str) -> float:
        seconds = duration(value)
        if not duration(shortest) <= seconds <= duration(longest):
            raise ValueError(f"out of range; write a duration from {shortest} to {longest}")
        return seconds

    return convert


resume_timeout = duration_within("1s", "1h")  # no agent grants more than an hour: mux.acceptor.MAX_PATIENCE
login_life = duration_within("10s", "8784h")


def size(value: str) -> int:
    """Bytes: "268435456", "256MiB", "1.5GiB"; the units of Kubernetes ("256Mi") as well."""
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError("not a size; write bytes with a binary unit, for example 64MiB, 256MiB or 1.5GiB")
    bytes_ = float(match[1]) * _SIZE_UNITS[match[2] or ""]
    if not _SMALLEST_SIZE <= bytes_ <= _LARGEST_SIZE:
        raise ValueError("out of range; write a size from 1MiB to 1024GiB")
    return int(bytes_)


def whole_number(smallest: int, largest: int, what: str) -> Callable[[str], int]:
    """A converter for whole numbers in a range. what: "a port number"."""

    def convert(value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) <= 12 and smallest <= int(value) <= largest):
            raise ValueError(f"not {what}; write a number from {smallest} to {largest}")
        return int(value)

    return convert


port = whole_number(1, 65535, "a port number")
listen_port = whole_number(0, 65535, "a port number (0: any free port)")
database = whole_number(0, 65535, "a database number")
tunnels = whole_number(1, MAX_SLOTS, "a number of tunnels")
channels = whole_number(1, 10_000, "a number of channels")


def listen_address(value: str) -> tuple[str, int]:
    """[ADDRESS]:PORT: ":2222", "0.0.0.0:2222", "[::]:2222"; without an address, all of this machine. Port 0: any."""
    name, colon, number = value.rpartition(":")
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if not colon or (":" in bare) != (bare != name) or (bare and not _HOST.fullmatch(bare)):
        raise ValueError("not an address to listen on; write for example :2222, 0.0.0.0:2222 or [::]:2222")
    return bare or "::", listen_port(number)


def base64_text(value: str) -> bytes:
    """What base64 stands for, line feeds and spaces in it left out."""
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except ValueError:
        raise ValueError("not base64; write what `base64 -w0 FILE` prints") from None


def address(value: str) -> str:
    """host:port, normalised."""
    return join_address(*split_address(value))


def addresses(value: str) -> tuple[str, ...]:
    """A comma-separated list of host:port."""
    return tuple(address(item.strip()) for item in value.split(","))


def redis_addresses(value: str) -> str:
    """One host:port or several, normalised, separated by commas."""
    return ",".join(addresses(value))


def host(value: str) -> str:
    """A host name or an IP address."""
    if not _HOST.fullmatch(value):
        raise ValueError("not a host; write a host name or an IP address, for example 127.0.0.1")
    return value


def domain(value: str) -> str:
    """The end of host names, without dots around it: "connect-server.default.svc"."""
    name = value.strip(".")
    if ":" in name or not _HOST.fullmatch(name):
        raise ValueError("not a domain; write the end of a host name, for example connect-server.default.svc")
    return name


def base_url(value: str) -> str:
    """http(s)://HOST[:PORT][/PATH] without a "/" at the end."""
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("has characters that a URL cannot have; write international names as xn--...")
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError("not a URL; write http://HOST[:PORT] or https://HOST[:PORT]")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a user name in it; write only the scheme, the host and, if need be, port and path")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValueError('has a "?" or "#" in it; write only the scheme, the host and, if need be, port and path')
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def origins(value: str) -> tuple[str, ...]:
    """Origins separated by commas, such as "https://platform.example.org"; "none" for none."""
    if value == "none":
        return ()
    return tuple(dict.fromkeys(_origin(item.strip()) for item in value.split(",")))


def _origin(value: str) -> str:
    parts = urlsplit(base_url(value))
    if parts.path or parts.netloc.endswith(":"):
        raise ValueError("not an origin; write http(s)://HOST[:PORT] without a path, or several separated by commas")
    return f"{parts.scheme}://{parts.netloc}"


def proxy_url(value: str) -> str:
    """A base URL under which Studios have sub-domains."""
    return HostNames(value).own_origin


def studio_domain(value: str) -> str:
    """The domain that Studios are sub-domains of."""
    return names.studio_domain(value)


def log_level(value: str) -> str:
    """One of LOG_LEVELS, in any case; WARNING is WARN."""
    level = value.upper().replace("WARNING", "WARN")
    if level not in LOG_LEVELS:
        raise ValueError(f"not a log level; write one of {', '.join(LOG_LEVELS)}")
    return level


def networks(value: str) -> tuple[Network, ...]:
    """A space-separated list of CIDR blocks; an address alone is a block of one."""
    found = []
    for item in value.split():
        try:
            found.append(ip_network(item))
        except ValueError as exc:
            raise ValueError(f"{exc}; write CIDR blocks separated by spaces, for example 10.0.0.0/8 ::1/128") from exc
    return tuple(found)


def path(value: str) -> Path:
    """A path of the file system."""
    if "\0" in value:
        raise ValueError("has a zero byte in it; write a path")
    return Path(value)


def readable_file(value: str) -> Path:
    """A path of a file that exists."""
    found = path(value)
    if not found.is_file():
        raise ValueError("no such file; write the path of a file that exists")
    if not os.access(found, os.R_OK):
        raise ValueError("may not be read; let the user that this process runs as read it")
    return found


def program(value: str) -> Path:
    """The absolute path of a program."""
    found = readable_file(value)
    if not found.is_absolute() or not os.access(found, os.X_OK):
        raise ValueError("not the path of a program; write an absolute path of a file that may be executed")
    return found


def variable_names(value: str) -> tuple[str, ...]:
    """A space-separated list of names of environment variables; a * at the end stands for anything."""
    names = tuple(value.split())
    if wrong := [name for name in names if not _VARIABLE_NAME.fullmatch(name)]:
        raise ValueError(
            f"{wrong[0]} is not the name of a variable; write names separated by spaces, such as LANG LC_*"
        )
    return names


def existing_folder(value: str) -> Path:
    """A path of a folder that exists."""
    found = path(value)
    if not found.is_dir():
        raise ValueError("no such folder; write the path of a folder that exists")
    return found


def path_prefix(value: str) -> str:
    """The beginning of a URL path, without a "/" at the end; "/" alone is the empty prefix."""
    prefix = value.rstrip("/")
    if prefix and (not _PATH_PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise ValueError("not a path prefix; write for example /_studio/a23ce7967")
    return prefix


_DISCOVERY = "/.well-known/openid-configuration"


def discovery_path(value: str) -> str:
    """A path where an OpenID provider describes itself, without the part that is the same everywhere."""
    if not value.endswith(_DISCOVERY):
        raise ValueError(f"not the path of an OpenID configuration; write for example /api{_DISCOVERY}")
    return path_prefix(value.removesuffix(_DISCOVERY))


def workspaces(value: str) -> tuple[int, ...]:
    """A comma-separated list of ids, perhaps empty."""
    try:
        return tuple(_workspace(item.strip()) for item in value.split(",")) if value else ()
    except ValueError as exc:
        raise ValueError("not a list of workspaces; write their ids, separated by commas, for example 1,2") from exc


_workspace = whole_number(0, 10**11, "a workspace's id")


def choice(*allowed: str) -> Callable[[str], str]:
    """A converter for one of several words."""

    def convert(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"not supported; write {' or '.join(allowed)}")
        return value

    return convert


def short_name(value: str) -> str:
    """A short name in lower-case letters, digits, "-" and "_"."""
    if not _SHORT_NAME.fullmatch(value):
        raise ValueError("not a short name; write lower-case letters, digits and dashes")
    return value


def key_prefix(value: str) -> str:
    """The beginning of keys in Redis."""
    prefix = token(value).rstrip(":")
    if not prefix or len(prefix) > _LONGEST_PREFIX:
        raise ValueError(f"not a prefix; write 1 to {_LONGEST_PREFIX} characters, for example connect:session")
    return prefix


def cluster_keys(value: str) -> tuple[str, ...]:
    """A comma-separated list of keys, perhaps empty."""
    keys = tuple(item.strip() for item in value.split(",")) if value else ()
    for key in keys:
        check_text(key)
    if len(keys) > MAX_KEYS:
        raise ValueError(f"{len(keys)} keys are too many; write at most {MAX_KEYS}")
    if len(set(keys)) < len(keys):
        raise ValueError("the same key is there twice; write each one once")
    return keys


def token(value: str) -> str:
    """Printable ASCII without spaces, as it travels in a header."""
    if not _TOKEN.fullmatch(value):
        raise ValueError("has characters other than printable ASCII without spaces")
    return value
