"""TLS to Redis: which files it takes, and what is wrong with them, in one line each."""

from __future__ import annotations

import ssl
from typing import Literal

import attrs

Which = Literal["ca", "cert", "key"]

_SAFE_REASONS = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}


class TlsFileError(ValueError):
    """A file cannot be used. which: the authority, the client's certificate or its key; the text has no path."""

    def __init__(self, which: Which, text: str) -> None:
        super().__init__(text)
        self.which = which


@attrs.frozen(kw_only=True)
class TlsFiles:
    """How to speak TLS to Redis.

    verify: whether its certificate must fit its host name and come from an authority. ca_file: the only authorities
    that count then (PEM); None for those of the system. cert_file, key_file: what we show Redis (PEM), both or none.
    """

    verify: bool = True
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files, anew for each connection, so that renewed ones are used. Raises TlsFileError."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as exc:  # of which ssl.SSLError is a kind
            raise TlsFileError("ca", _why(exc, "it holds no certificate in PEM")) from exc
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file is not None:
            _load_pair(context, self.cert_file, self.key_file or self.cert_file)
        return context


def _load_pair(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert_file)
    except OSError as exc:
        raise TlsFileError("cert", _why(exc, "it holds no certificate in PEM")) from exc
    try:
        with open(key_file, "rb"):
            pass  # for load_cert_chain does not say which of its files it could not open
        context.load_cert_chain(cert_file, key_file, password=_refuse)
    except ssl.SSLError as exc:
        if exc.reason in _SAFE_REASONS:
            raise TlsFileError("key", "it does not belong to the certificate") from exc
        raise TlsFileError("key", "it holds no private key in PEM") from exc
    except OSError as exc:
        raise TlsFileError("key", _why(exc, "it cannot be read")) from exc


def _refuse() -> str:
    """OpenSSL asks for the key's pass phrase; without this it would ask whoever sits at the terminal."""
    raise TlsFileError("key", "it is encrypted; write one without a pass phrase")


def _why(exc: OSError, otherwise: str) -> str:
    return otherwise if isinstance(exc, ssl.SSLError) or not exc.strerror else f"it cannot be read ({exc.strerror})"
