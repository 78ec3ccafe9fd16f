"""Attempts without a door: the engine listens on a port of its node, and may take a secret.

Such are the jobs of the release before, until they are replaced, and engines of direct access, whose clients speak to
them. To be removed, with its users, in the release after this one, once vLLM is never launched so.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache


def secret(key: bytes, token: str) -> str:
    """Return the secret of an attempt: an HMAC of its token. Computed where it is needed, stored nowhere else."""
    return hmac.digest(key, token.encode(), hashlib.sha256).hex()


@lru_cache(maxsize=1024)
def secret_of(keys: tuple[bytes, ...], token: str) -> str:
    """Return the secret of an attempt under the oldest key: nothing tells which one was the newest at its launch."""
    return secret(keys[-1], token)


def authorization(secret: str | None) -> dict[str, str]:
    """Return the header that shows it."""
    return {"Authorization": f"Bearer {secret}"} if secret is not None else {}
