"""Whether the mirror on this machine answers: asked by a container's health check, of its own `/readyz`.

It is found by the settings that it was started with, so that another port, or HTTPS, needs nothing else.
"""

import contextlib
import http.client
import ssl
from typing import Final

from mirror.config import Settings
from mirror.config.hosts import split

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_WITHIN: Final = 5.0  # seconds


def fault(settings: Settings) -> str | None:
    """Why the mirror with these settings is not ready; None when it is.

    Its certificate is not looked at: what is asked lies on this machine, and is told nothing.
    """
    located = split(settings.listen)
    assert located is not None, "it was parsed when it was set"
    host, port = located
    if not port:
        return f"no port to ask at: `listen` is {settings.listen}, any port that is free"
    try:
        with contextlib.closing(_connection(_EVERYWHERE.get(host, host), port, settings)) as connection:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            said = answer.read(200).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        words = getattr(error, "strerror", None) or error or type(error).__name__
        return f"{settings.listen} does not answer: {words}"
    return None if answer.status == 200 else f"{settings.listen} answers {answer.status}: {said}"


def _connection(host: str, port: int, settings: Settings) -> http.client.HTTPConnection:
    if settings.tls.certificate is None:
        return http.client.HTTPConnection(host, port, timeout=_WITHIN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=_WITHIN, context=context)
