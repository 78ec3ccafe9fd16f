"""The secrets of keys: `aif_`, 43 letters and digits that hold 256 random bits, and 6 that hold a checksum.

The prefix is for programs that search for secrets which got out: `aif_[0-9A-Za-z]{49}`. The checksum (as in GitHub's
tokens: CRC-32 in base 62) tells a key that was copied wrongly from one that is not there any more, without a look at
any key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

PREFIX = "aif_"
BITS = 256
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM, _CHECKSUM = 43, 6
"""Digits of base 62 that hold 256 and 32 bits."""
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM + _CHECKSUM}}}")
SHOWN = len(PREFIX) + 6


def new_secret() -> str:
    """Make a secret."""
    return with_checksum(PREFIX + _base62(secrets.randbits(BITS), _RANDOM))


def with_checksum(text: str) -> str:
    """Return prefix and random digits with their checksum."""
    return text + _base62(zlib.crc32(text.encode()), _CHECKSUM)


def is_whole(text: str) -> bool:
    """Whether it has the form of a secret, and its checksum is right."""
    return _FORM.fullmatch(text) is not None and with_checksum(text[:-_CHECKSUM]) == text


def digest_of(secret: str) -> str:
    """Return what is stored of a secret. SHA-256 will do: 256 random bits can't be guessed, however fast it is."""
    return hashlib.sha256(secret.encode()).hexdigest()


def start_of(secret: str) -> str:
    """Return the beginning of a secret, by which people know it again."""
    return secret[:SHOWN]


def _base62(number: int, length: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits.rjust(length, _DIGITS[0])
