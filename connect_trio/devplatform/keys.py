"""The keys that the development Platform signs with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization, RSAKey

_ALGORITHM = "RS256"
_KEPT = 2


class KeyRing:
    """RSA keys, the newest first: it signs, the older ones still verify."""

    def __init__(self, keys: KeySet | None = None) -> None:
        """Makes a key if none is given, which takes some 100 ms of processor time."""
        self._keys = keys or KeySet([_new_key()])

    @classmethod
    def deserialise(cls, content: bytes) -> KeyRing:
        """The reverse of `serialise`. Raises ValueError."""
        try:
            return cls(KeySet.import_key_set(cast("KeySetSerialization", json.loads(content))))
        except (JoseError, TypeError, KeyError, ValueError) as exc:
            raise ValueError("this is no set of private keys") from exc

    def serialise(self) -> bytes:
        """The private keys as a JWK set."""
        return json.dumps(self._keys.as_dict(private=True)).encode()

    def published(self) -> Mapping[str, Any]:
        """The public keys as a JWK set (RFC 7517 section 5)."""
        return self._keys.as_dict(private=False, use="sig", alg=_ALGORITHM)

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        self._keys = KeySet([_new_key(), *self._keys.keys[: _KEPT - 1]])

    def sign(self, claims: Mapping[str, Any], *, kind: str = "JWT") -> str:
        """A token. kind: its `typ`, by which one sort of token cannot pass for another (RFC 8725 section 3.11)."""
        key = self._keys.keys[0]
        return jwt.encode({"alg": _ALGORITHM, "kid": key.kid, "typ": kind}, dict(claims), key)

    def claims(self, token: str, *, kind: str = "JWT") -> dict[str, Any] | None:
        """What a token of ours says, whether or not it has expired; None if it is not ours or of another kind."""
        try:
            decoded = jwt.decode(token, self._keys, algorithms=[_ALGORITHM])
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return decoded.claims if decoded.header.get("typ") == kind else None


def _new_key() -> RSAKey:
    return RSAKey.generate_key(2048, auto_kid=True)
