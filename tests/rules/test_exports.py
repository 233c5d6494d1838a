"""The public names: sorted, importable, and the ones that are promised."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import prosody

PROMISED = """
    AdminClient BrokerError BusyKey ClientClosedError ConfigurationError ConfigurationTypeError
    ConsumerStateError Context ContextError DeferredKey EventHandler EventHandlerError ExciseMessage
    ForkError HandlerTypeError JSONValue Message OldestMessage PartitionSnapshot PayloadError
    PermanentError ProsodyClient ProsodyError RecordTooLargeError RunSnapshot SendError SendTimeoutError
    Snapshot StoreDownError StoreError Timer TopicsNotFoundError TransientError WaitingKey permanent
    transient
""".split()  # noqa: SIM905

COMPATIBLE = {
    "prosody.prosody": ["AdminClient", "ProsodyClient"],
    "prosody.context": ["Context"],
    "prosody.handler": ["EventHandler"],
    "prosody.message": ["Message"],
    "prosody.timer": ["Timer"],
}
"""Where programs written for the reference package import from."""


def test_all_is_sorted_complete_and_importable() -> None:
    assert prosody.__all__ == sorted(PROMISED)
    for name in prosody.__all__:
        assert getattr(prosody, name) is not None


def test_every_public_name_explains_itself() -> None:
    for name in prosody.__all__:
        if name != "JSONValue":
            assert inspect.getdoc(getattr(prosody, name)), f"{name} has no docstring"


@pytest.mark.parametrize("module", sorted(COMPATIBLE))
def test_module_paths_of_the_reference_package(module: str) -> None:
    found = importlib.import_module(module)
    assert set(COMPATIBLE[module]) <= set(found.__all__)
    for name in found.__all__:
        assert getattr(found, name) is getattr(prosody, name)


def test_handler_errors_can_be_imported_from_where_they_are_raised() -> None:
    from prosody.errors import EventHandlerError, PermanentError, TransientError

    assert prosody.EventHandlerError is EventHandlerError
    assert (prosody.PermanentError, prosody.TransientError) == (PermanentError, TransientError)


def test_the_package_says_that_it_is_typed() -> None:
    assert importlib.resources.files("prosody").joinpath("py.typed").is_file()


def test_importing_it_warns_of_nothing_and_starts_nothing() -> None:
    code = (
        "import sys, threading; before = threading.active_count(); import prosody; "
        "assert threading.active_count() == before; "
        "assert 'cassandra.cluster' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:prosody", "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
