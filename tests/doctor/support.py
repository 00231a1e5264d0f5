"""Examining one thing, and certificates of every kind."""

import ssl
import subprocess
from pathlib import Path
from typing import Any

from mirror.config import Defaults, EndpointSettings, UpstreamSettings
from mirror.config.upstreams import Credentials
from mirror.doctor.report import Finding, Mark, Subject
from mirror.doctor.upstreams import EndpointCheck
from mirror.doctor.visit import Examination, examine
from tests.support.certificates import Certificate
from tests.support.tools import require
from tests.support.upstream import FaultyUpstream


class Found:
    """The findings about one subject."""

    def __init__(self, subject: Subject) -> None:
        self.findings = subject.findings

    def __getitem__(self, check: str) -> Finding:
        """The one finding of that name."""
        (found,) = [finding for finding in self.findings if finding.check == check]
        return found

    def mark(self, check: str) -> Mark | None:
        """Its mark, None when that was not looked at."""
        return next((finding.mark for finding in self.findings if finding.check == check), None)

    @property
    def text(self) -> str:
        """All words."""
        return "\n".join(f"{one.check}: {one.mark} {one.said} -> {one.advice}" for one in self.findings)

    def __repr__(self) -> str:
        """For failed assertions."""
        return self.text


async def found_by(look: Examination, *, within: float = 10.0) -> Found:
    """What an examination finds."""
    subject = Subject("subject", "about")
    await examine(subject, look, within=within)
    return Found(subject)


async def endpoint(
    url: str | FaultyUpstream,
    *,
    credentials: Credentials | None = None,
    check: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    name: str = "corp",
    within: float = 10.0,
    **endpoint: Any,
) -> Found:
    """What is found at the only endpoint of ``corp``. ``check`` is for `EndpointCheck`, ``settings`` the upstream's."""
    one = EndpointSettings(url=url.url if isinstance(url, FaultyUpstream) else url, **endpoint)
    upstream = UpstreamSettings(endpoints=(one,), credentials=credentials, **(settings or {}))
    effective = upstream.effective(name, Defaults())
    return await found_by(EndpointCheck(name, effective, 0, **{"environment": {}, **(check or {})}), within=within)


def certificate(folder: Path, *, days: int = 400, names: str = "IP:127.0.0.1,DNS:localhost") -> Certificate:
    """A certificate that signs itself, for ``names``, good for so many days; with -1 it was good until yesterday."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    subprocess.run(
        [require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", str(max(days, 1)), "-subj", "/CN=Test Authority", "-addext", f"subjectAltName={names}",
         "-keyout", made.key, "-out", made.certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    if days < 0:  # only when it signs one again does the program take a day that is past
        subprocess.run(
            [require("openssl"), "x509", "-in", made.certificate, "-signkey", made.key, "-days", str(days),
             "-out", made.certificate],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
    return made


def wanting_certificate(server: Certificate, client: Certificate) -> ssl.SSLContext:
    """For a server that takes only clients that show a certificate of ``client``."""
    context = server.for_servers
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(client.certificate)
    return context
