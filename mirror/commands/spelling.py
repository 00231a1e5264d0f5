"""References as people have them to references as a mirror is asked for them. Pure."""

from collections.abc import Iterable

_PLAIN = "modules/"


def asked_for(text: str, mirror: str) -> str:
    """What to ask the mirror at the host ``mirror`` for, where ``text`` names it by that host.

    It may not be among the mirror's own names, as when its port was forwarded. So may an address below ``/modules/``,
    at whatever host. All else the mirror judges.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        path = rest.partition("?")[0].partition("/")[2]
        return path.removeprefix(_PLAIN).removesuffix(".wasm") if path.startswith(_PLAIN) else text
    if separator and scheme.lower() != "oci":
        return text
    host, slash, behind = (rest if separator else text).partition("/")
    return behind if slash and host.lower() == mirror.lower() else text


def all_asked_for(texts: Iterable[str], mirror: str) -> list[str]:
    """`asked_for` of each of ``texts``, once."""
    return list(dict.fromkeys(asked_for(text, mirror) for text in texts))
