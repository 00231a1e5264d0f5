"""Whether a host can be reached at all: its addresses, a connection to each of them, and the certificate it shows."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mirror.doctor.report import Subject
from mirror.upstream.dial import Resolver, is_public

_RESOLVE_WITHIN = 4.0
_CONNECT_WITHIN = 3.0
_HANDSHAKE_WITHIN = 4.0
_STAYS_FOR = 0.25  # seconds
_EXPIRES_SOON = 14 * 86400.0
_MAX_ADDRESSES = 8
_DAY = 86400.0

# OpenSSL's X509_V_FLAG_PARTIAL_CHAIN and X509_V_FLAG_NO_CHECK_TIME: Python has no name for the latter.
_LOOK_ONLY = ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | 0x200000

# OpenSSL's X509_V_ERR_…: Python has no names for them.
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_HOST = {62, 64}
_UNKNOWN_AUTHORITY = {2, 18, 19, 20, 21}


@dataclass(frozen=True, slots=True)
class Place:
    """A host and port, and the setting that names it."""

    host: str
    port: int
    setting: str

    @property
    def plain(self) -> str:
        """How its URL begins without TLS."""
        return "redis://" if self.setting.startswith("metadata.") else "http://"

    @property
    def between(self) -> str:
        """What may stand in the way to it: a proxy only where it is a registry."""
        walls = "firewalls, network policies for egress"
        asked_by_http = self.setting.startswith("upstreams.")
        return f"{walls}, or a proxy that must be used (HTTPS_PROXY)" if asked_by_http else walls


async def resolved(subject: Subject, place: Place, resolve: Resolver) -> Sequence[str]:
    """Its addresses, none when it has none."""
    try:
        async with asyncio.timeout(_RESOLVE_WITHIN):
            addresses = await resolve(place.host, place.port)
    except TimeoutError:
        subject.fail(
            "DNS",
            f"no answer about {place.host} within {_RESOLVE_WITHIN:g} s",
            "the name servers of this machine (/etc/resolv.conf) do not answer; in Kubernetes see to the cluster's DNS "
            "and to network policies that stop UDP and TCP port 53",
        )
        return ()
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, socket.gaierror) else "it is no host name"
        subject.fail(
            "DNS",
            f"{place.host} does not resolve: {why}",
            f"check the spelling in {place.setting}, and that the name servers of this machine know it",
        )
        return ()
    subject.ok("DNS", ", ".join(f"{address} ({_kind(address)})" for address in addresses))
    return addresses


def _kind(address: str) -> str:
    return "public" if is_public(address) else "private"


async def connected(subject: Subject, place: Place, addresses: Sequence[str]) -> Sequence[str]:
    """Those of ``addresses`` that accept connections."""
    tried = addresses[:_MAX_ADDRESSES]
    failures = await asyncio.gather(*(_connect(address, place.port) for address in tried))
    accepting = [address for address, failure in zip(tried, failures, strict=True) if failure is None]
    told = "; ".join(f"{address} {why}" for address, why in zip(tried, failures, strict=True) if why is not None)
    if accepting and not told:
        subject.ok("TCP", f"port {place.port} accepts connections")
    elif accepting:
        subject.warn(
            "TCP",
            f"{len(accepting)} of {len(tried)} addresses accept connections on port {place.port}; {told}",
            "the mirror goes to the next address, a quarter of a second later each time; where IPv6 is the one that "
            "fails, mend its routing or let the name servers leave it out",
        )
    else:
        subject.fail(
            "TCP",
            f"port {place.port}: {told}",
            f"check host and port of {place.setting}, that the server runs, and what stands between: {place.between}",
        )
    return accepting


async def _connect(address: str, port: int) -> str | None:
    """Why there is no connection; None when there is one."""
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return f"does not answer within {_CONNECT_WITHIN:g} s"
    except ConnectionRefusedError:
        return "refuses connections"
    except OSError as error:
        return f"cannot be reached: {error.strerror or type(error).__name__}"
    writer.transport.abort()
    return None


async def shown_certificate(
    subject: Subject, place: Place, address: str, trust: ssl.SSLContext, *, ca_setting: str, now: float
) -> bool:
    """Whether TLS comes about there, and what of the certificate is worth telling.

    ``trust`` is the context that the mirror itself uses; ``ca_setting`` is the key for an authority of one's own, and
    ``now`` the wall clock.
    """
    try:
        version, certificate = await _handshake(address, place, trust)
    except ssl.SSLCertVerificationError as error:
        seen = await _look(address, place)
        subject.fail("TLS", *_refused(error, seen, place, ca_setting))
        return False
    except TimeoutError:
        subject.fail(
            "TLS",
            f"accepts the connection, and does not agree on TLS within {_HANDSHAKE_WITHIN:g} s",
            f"the server hangs, or it does not speak TLS: then {place.setting} must begin with {place.plain}",
        )
        return False
    except (OSError, EOFError) as error:
        subject.fail("TLS", *_no_tls(error, place))
        return False
    said = f"{version}; {_names(certificate)}; issued by {_name(certificate, 'issuer')}"
    left = _expiry(certificate) - now
    told = f"{said}; expires in {left / _DAY:.0f} days ({certificate.get('notAfter')})"
    if left < _EXPIRES_SOON:
        subject.warn(
            "TLS", told, f"renew the certificate of {place.host}: once it has expired no pull from there works"
        )
    else:
        subject.ok("TLS", told)
    return True


class _CutOff(ConnectionError):
    """The handshake was done, and the server closed the connection before anything was asked."""


def _no_tls(error: Exception, place: Place) -> tuple[str, str]:
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, _CutOff) or ("ALERT" in reason and ("CERTIFICATE" in reason or "HANDSHAKE" in reason)):
        return (
            f"the server breaks off ({reason.replace('_', ' ').lower() or 'without a word, after the handshake'})",
            "it wants a client certificate, or another one: set client_certificate and client_key beside "
            f"{place.setting}",
        )
    return (
        "does not speak TLS as the mirror does" + (f" ({reason.replace('_', ' ').lower()})" if reason else ""),
        f"if it is a plain server, {place.setting} must begin with {place.plain}; otherwise it needs TLS 1.2 or newer",
    )


def _refused(
    error: ssl.SSLCertVerificationError, seen: dict[str, Any], place: Place, ca_setting: str
) -> tuple[str, str]:
    """What is wrong with a certificate, and what to do about it."""
    about = f"; it is {_names(seen)}, issued by {_name(seen, 'issuer')}" if seen else ""
    if error.verify_code in _WRONG_HOST:
        return (
            f"the certificate is not for {place.host}{about}",
            f"use one of those names in {place.setting}, or give the server a certificate for {place.host}",
        )
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        word, key = ("has expired", "notAfter") if error.verify_code == _EXPIRED else ("is not valid yet", "notBefore")
        when = f" ({key} {seen[key]})" if key in seen else ""
        return (
            f"the certificate {word}{when}{about}",
            "renew it at the server; if it looks right to others, the clock of this machine is wrong",
        )
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return (
            f"the certificate is not trusted: {error.verify_message}{about}",
            f"if that authority is your own, name its PEM file in {ca_setting}; if it is a public one, the server does "
            "not send the whole chain, or this machine has no CA certificates (SSL_CERT_FILE)",
        )
    return (
        f"the certificate is not trusted: {error.verify_message}{about}",
        f"mend it at the server, or see {ca_setting}",
    )


async def _handshake(address: str, place: Place, context: ssl.SSLContext) -> tuple[str, dict[str, Any]]:
    """The version of TLS and the certificate, as `ssl.SSLSocket.getpeercert` gives it. Raises `_CutOff`, too."""
    async with asyncio.timeout(_HANDSHAKE_WITHIN):
        reader, writer = await asyncio.open_connection(address, place.port, ssl=context, server_hostname=place.host)
    try:
        tls = writer.get_extra_info("ssl_object")
        version, certificate = tls.version() or "TLS", tls.getpeercert() or {}
        # With TLS 1.3 a client is told only after the handshake that it should have shown a certificate.
        try:
            async with asyncio.timeout(_STAYS_FOR):
                said = await reader.read(1)
        except TimeoutError:
            return version, certificate
        if not said:
            raise _CutOff
        return version, certificate
    finally:
        writer.transport.abort()


async def _look(address: str, place: Place) -> dict[str, Any]:
    """A certificate that nobody vouches for, only to tell about it; empty when it cannot be read."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError, EOFError):
        async with asyncio.timeout(_HANDSHAKE_WITHIN):
            _, writer = await asyncio.open_connection(address, place.port, ssl=anybody, server_hostname=place.host)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        # Python takes only a verified certificate apart, so it is made to vouch for itself.
        itself = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        itself.check_hostname = False
        itself.verify_flags |= _LOOK_ONLY
        itself.load_verify_locations(cadata=shown)
        return (await _handshake(address, place, itself))[1]
    return {}


def _expiry(certificate: dict[str, Any]) -> float:
    return float(ssl.cert_time_to_seconds(certificate["notAfter"]))


def _names(certificate: dict[str, Any]) -> str:
    names = [value for _, value in certificate.get("subjectAltName", ())] or [_name(certificate, "subject")]
    return f"for {', '.join(names[:6])}{', …' if len(names) > 6 else ''}"


def _name(certificate: dict[str, Any], field: str) -> str:
    parts = {key: value for entry in certificate.get(field, ()) for key, value in entry}
    return str(parts.get("commonName") or parts.get("organizationName") or "an authority without a name")
