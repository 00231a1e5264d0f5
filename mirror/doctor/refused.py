"""What Redis refuses, and the way to it, and what to do about it. Pure."""

import ssl

from redis.exceptions import AuthenticationError, MovedError

from mirror.config.redis import RedisPlace, Topology

ACL = "ACL SETUSER NAME on >PASSWORD ~wm1:* +@all -@dangerous +info"


def refused(error: Exception, place: RedisPlace) -> tuple[str, str, str]:
    """The finding for what Redis, or the way to it, answered."""
    words = str(error) or type(error).__name__
    match error:
        case ssl.SSLError():
            return "TLS", _reason(error), "see to metadata.ca_file, client_certificate and client_key"
        case AuthenticationError():
            return (
                "auth",
                f"Redis refuses the login: {words}",
                "set metadata.password_file (and username or username_file for a user that is not the default one) to "
                "what Redis knows; without a password in Redis leave them out",
            )
        case MovedError():
            return (
                "topology",
                "it is one server of a Cluster",
                "write metadata.url as redis+cluster://HOST:PORT,… with a few of its servers",
            )
    told = f"{type(error).__name__}: {words}".lower()  # redis-py has made classes of some codes
    if any(sign in told for sign in _FORBIDDEN):
        return (
            "permissions",
            f"the user may not do what the mirror needs: {words}",
            f"give it keys and commands: {ACL}",
        )
    if place.topology is Topology.SENTINEL and "sentinel" in told:
        advice = "see whether the Sentinels run, and know a master by the name at the end of metadata.url"
        if "unknown command" in told:
            advice = "it is no Sentinel: name those, or write metadata.url as redis://HOST:PORT"
        return "answer", words, advice
    for sign, advice in _SIGNS:
        if sign in told:
            return "answer", words, advice
    return "answer", words, "see to that server, and to its log; until it answers each replica goes on alone"


# As the servers say it, since 6.0, and as redis-py names the errors that it makes of that.
_FORBIDDEN = ("noperm", "nopermission", "no permissions", "can't run this command", "can't access")

_SIGNS = (
    ("noauth", "Redis wants a login: set metadata.password_file, and the user beside it if it is not the default one"),
    ("readonly", "it is a replica, which takes no writes: name the master in metadata.url, or Sentinels that know it"),
    ("outofmemory", "Redis is full: raise maxmemory, or set maxmemory-policy to volatile-lru"),
    ("oom command", "Redis is full: raise maxmemory, or set maxmemory-policy to volatile-lru"),
    ("misconf", "Redis cannot write to its disk and refuses writes: see to that disk, and to the log of Redis"),
    ("loading", "Redis has just started and reads its data: run doctor again"),
    ("clusterdown", "the Cluster lacks masters for some slots: see CLUSTER INFO, and start what is down"),
    ("cluster support disabled", "it is no Cluster: write metadata.url as redis://HOST:PORT"),
    ("out of range", "that server does not have the database at the end of metadata.url: mostly there are 0 to 15"),
    ("password_file", "let metadata.password_file be there, and readable for the user that runs the mirror"),
    ("username_file", "let metadata.username_file be there, and readable for the user that runs the mirror"),
    (
        "says nothing for",
        "it accepts connections and does not answer: see to that server, which hangs, or is held up by a slow command "
        "(SLOWLOG GET)",
    ),
    ("protocol error", "what answers there is no Redis: check host and port in metadata.url"),
    ("unknown command", "what answers there lacks commands that the mirror needs: it takes a Redis 6.2 or newer"),
)


def _reason(error: ssl.SSLError) -> str:
    return str(error.reason or "TLS fails").replace("_", " ").lower()
