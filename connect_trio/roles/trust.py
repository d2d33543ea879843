"""By which key, and over which TLS, a role's links are trusted: as its settings say."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import attrs
import trio

from connect_trio.config import ProxySettings, ServerSettings
from connect_trio.routing.registry import Store
from connect_trio.routing.shared_key import open_shared_key
from connect_trio.transport.keyring import SECRET_SIZE, Key, Keyring
from connect_trio.transport.trusted import Dialler


class TlsUnusable(Exception):
    """The files for TLS on links cannot be used; the text names them, and says what is expected there."""


@attrs.frozen
class Trust:
    """keyring: the keys that links are proven by. keep: runs as long as the role, and keeps it up to date."""

    keyring: Keyring
    keep: Callable[[], Awaitable[None]] = trio.sleep_forever


async def trust_from(settings: ServerSettings | ProxySettings, store: Store | None) -> Trust:
    """By the key of the settings; else by the one in Redis; else by one that only this process knows.

    store: the one in Redis; None where all roles are in this process. Raises RegistryUnavailable and KeyUnusable.
    """
    if settings.cluster_key:
        return Trust(Keyring([Key.of_text(text) for text in settings.cluster_key]))
    if store is None:
        return Trust(process_keyring())
    shared = await open_shared_key(store)
    return Trust(shared.keyring, shared.keep)


@cache
def process_keyring() -> Keyring:
    """A key for roles that share a process, and no Redis."""
    return Keyring([Key.of_secret(secrets.token_bytes(SECRET_SIZE))])


def server_tls(settings: ServerSettings) -> ssl.SSLContext | None:
    """Raises TlsUnusable."""
    cert, key = settings.link_tls_cert_file, settings.link_tls_key_file
    if cert is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        # Without a password: OpenSSL would ask for one at the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as exc:
        raise TlsUnusable(
            f"CONNECT_LINK_TLS_CERT_FILE={cert} and CONNECT_LINK_TLS_KEY_FILE={key} cannot be used together"
            f" ({_reason(exc)}): name a certificate chain and its key without a password, both PEM"
        ) from exc
    return context


def reload_server_tls(settings: ServerSettings, context: ssl.SSLContext) -> str:
    """Show what is in the certificate's files now to links that come from now on. Raises ValueError if it is unusable.

    All connections come by one context, so it is the one that has to change; the files are tried with another first.
    """
    cert, key = settings.link_tls_cert_file, settings.link_tls_key_file
    if cert is None or key is None:
        raise ValueError("there is none")
    try:
        server_tls(settings)
        context.load_cert_chain(cert, key, password=lambda: "")
    except (TlsUnusable, OSError) as exc:
        raise ValueError(str(exc)) from exc
    return str(cert)


def client_tls(settings: ProxySettings) -> ssl.SSLContext | None:
    """Raises TlsUnusable."""
    context = _believing("CONNECT_LINK_TLS_CA_FILE", settings.link_tls_ca_file)
    if context is not None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def reload_client_tls(settings: ProxySettings, dialler: Dialler) -> str:
    """Believe the authorities that are in the file now, and no others, of links that are made from now on.

    Raises ValueError if the file is unusable.
    """
    try:
        dialler.tls = client_tls(settings)
    except TlsUnusable as exc:
        raise ValueError(str(exc)) from exc
    return str(settings.link_tls_ca_file)


def platform_tls(settings: ProxySettings) -> ssl.SSLContext | None:
    """How Platform's certificate is judged; None for the system's authorities. Raises TlsUnusable."""
    return _believing("CONNECT_PLATFORM_CA_FILE", settings.platform_ca_file)


def _believing(variable: str, authorities: Path | None) -> ssl.SSLContext | None:
    if authorities is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies, also the name; knows no authorities but these
    try:
        context.load_verify_locations(authorities)
    except (OSError, ValueError) as exc:
        raise TlsUnusable(
            f"{variable}={authorities} cannot be used ({_reason(exc)}): name a file of PEM certificates"
        ) from exc
    return context


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).lower().replace("_", " ")
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
