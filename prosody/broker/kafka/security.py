"""How to reach a cluster: addresses, TLS and SASL, as aiokafka wants them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

from prosody.errors import ConfigurationError

_TLS = ("SSL", "SASL_SSL")


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """TLS and SASL of a cluster; by default neither.

    ``protocol`` is ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``; ``sasl_mechanism`` is
    ``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``. Files are PEM. Without ``ssl_cafile`` the
    system's certificate authorities count. Secrets are not shown by ``repr``.
    """

    protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keypassword: str | None = field(default=None, repr=False)
    ssl_check_hostname: bool = True

    def client_options(self) -> dict[str, Any]:
        """The options of an aiokafka client. Reads the certificate files.

        :raises ConfigurationError: when one of the files cannot be read.
        """
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol in _TLS:
            options["ssl_context"] = self._ssl_context()
        if self.protocol.startswith("SASL_"):
            options["sasl_mechanism"] = self.sasl_mechanism or "PLAIN"
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
        except OSError as error:  # ssl.SSLError is one too
            raise ConfigurationError(
                [f"ssl_cafile={self.ssl_cafile!r}: {error}; give a PEM file that can be read"]
            ) from error
        # An unknown host name is refused unless asked for; the certificate itself is always checked.
        context.check_hostname = self.ssl_check_hostname
        if self.ssl_certfile is not None:
            try:
                # A password must be given, or OpenSSL would ask for one on the terminal.
                context.load_cert_chain(
                    self.ssl_certfile, self.ssl_keyfile, self.ssl_keypassword or ""
                )
            except OSError as error:
                raise ConfigurationError(
                    [
                        f"ssl_certfile={self.ssl_certfile!r}, ssl_keyfile={self.ssl_keyfile!r}: "
                        f"{error}; give PEM files that belong together, and ssl_keypassword if needed"
                    ]
                ) from error
        return context
