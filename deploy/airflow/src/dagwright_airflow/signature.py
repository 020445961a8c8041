"""Signatures as Standard Webhooks has them: ``v1,`` and the HMAC-SHA256 of ``id.timestamp.body`` in base64.

The scheme is that of Dagwright's own webhooks, the other way round. Several secrets sign side by side, so that the
daemon can be given a new one before the old one goes. This module needs nothing of Airflow.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

# What a secret may begin with, so that scanners for secrets find it.
PREFIX = "whsec_"

# How long a secret is, in bytes (Standard Webhooks, "Signature scheme").
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64


class SecretError(Exception):
    """A secret that cannot be used; the message holds nothing of it."""


class Signer:
    """Signs with one or more secrets."""

    def __init__(self, secrets: str) -> None:
        """Read secrets with white space between them.

        Raises:
            SecretError: there is none, or one is not 24 to 64 bytes in base64.

        """
        self._keys = [_key(secret) for secret in secrets.split()]
        if not self._keys:
            raise SecretError("holds no secret")

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """Return the value of the header ``webhook-signature``."""
        signed = f"{message_id}.{timestamp}.".encode() + body
        digests = (hmac.digest(key, signed, hashlib.sha256) for key in self._keys)
        return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)

    def __repr__(self) -> str:
        return "Signer(***)"


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        # Without its cause, which may quote the secret.
        raise SecretError("holds a secret that is not base64") from None
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise SecretError(
            f"holds a secret of fewer than {SECRET_BYTES_MIN} or more than {SECRET_BYTES_MAX} bytes"
        ) from None
    return key
