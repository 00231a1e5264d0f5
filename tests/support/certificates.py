"""Certificates for servers in tests, made by the program ``openssl``."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import require


@dataclass(frozen=True)
class Certificate:
    """A certificate that signs itself, with its key, in files; good for ``127.0.0.1`` and ``localhost``, for a day."""

    certificate: Path
    key: Path

    @property
    def for_servers(self) -> ssl.SSLContext:
        """For a server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    @property
    def for_clients(self) -> ssl.SSLContext:
        """For a client that trusts it, and nobody else."""
        return ssl.create_default_context(cafile=str(self.certificate))


def self_signed(folder: Path) -> Certificate:
    """Make a certificate under ``folder``."""
    program = require("openssl")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    subprocess.run(
        [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", made.key, "-out", made.certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return made
