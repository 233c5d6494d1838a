"""TLS and SASL as aiokafka wants them."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from prosody.broker.kafka import KafkaSecurity
from prosody.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def test_plain_by_default() -> None:
    assert KafkaSecurity().client_options() == {"security_protocol": "PLAINTEXT"}


def test_sasl() -> None:
    security = KafkaSecurity(
        protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="me",
        sasl_password="secret",
    )
    assert security.client_options() == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "me",
        "sasl_plain_password": "secret",
    }
    assert "secret" not in repr(security)


@pytest.mark.parametrize("check", [True, False])
def test_the_certificate_is_checked_in_any_case(check: bool) -> None:
    context = KafkaSecurity(protocol="SSL", ssl_check_hostname=check).client_options()[
        "ssl_context"
    ]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is check


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match=r"ssl_cafile='.*ca\.pem'"):
        KafkaSecurity(protocol="SSL", ssl_cafile=missing).client_options()
    with pytest.raises(ConfigurationError, match=r"ssl_certfile='.*ca\.pem'"):
        KafkaSecurity(protocol="SSL", ssl_certfile=missing).client_options()
