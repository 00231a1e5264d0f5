"""Basic credentials, as a request has them. Source: RFC 7617."""

import binascii
from dataclasses import dataclass, field
from typing import Final

from mirror.auth.htpasswd import SETTING
from mirror.errors import Unauthorized

AS_A_USER: Final = f"log in as a user of the mirror's {SETTING}"


@dataclass(frozen=True, slots=True)
class Basic:
    """What a client says it is. ``exact``: the bytes of its name were UTF-8."""

    user: str
    password: bytes = field(repr=False)
    exact: bool = True


def basic(authorization: str | None, remedy: str = AS_A_USER) -> Basic | None:
    """The credentials of a request; None without any: empty ones are none.

    Raises `Unauthorized`, whose words end with ``remedy``. Source: RFC 7617, section 2.
    """
    if not authorization:
        return None
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise Unauthorized(f"this mirror takes Basic authentication only: {remedy}")
    try:
        user, colon, password = binascii.a2b_base64(text.strip(), strict_mode=True).partition(b":")
    except ValueError:
        colon = b""
    if not colon:
        raise Unauthorized(f"the Authorization header is not one of Basic authentication: {remedy}")
    if not user and not password:
        return None
    try:
        return Basic(user.decode(), password)
    except UnicodeDecodeError:
        return Basic(user.decode("utf-8", "replace"), password, exact=False)
