"""Names of spans and attributes, compared with the installed package of the conventions."""

from __future__ import annotations

import inspect

from opentelemetry.semconv._incubating.attributes import (
    messaging_attributes,
    opentracing_attributes,
)
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MessagingOperationTypeValues,
    MessagingSystemValues,
)
from opentelemetry.semconv.attributes import error_attributes

from prosody.observe import spans


def test_names_are_those_of_the_conventions() -> None:
    known = {
        value
        for module in (messaging_attributes, opentracing_attributes, error_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    ours = {
        name: value
        for name, value in vars(spans).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str)
    }
    names = {name for name, value in ours.items() if "." in value}
    assert len(names) > 10
    own = {name for name in names if ours[name].startswith("prosody.")}
    assert own == {"TIMER_TIME", "ATTEMPT", "REDELIVERED"}
    assert {ours[name] for name in names - own} <= known
    assert MessagingSystemValues.KAFKA.value == spans.KAFKA
    assert {spans.SEND, spans.PROCESS} <= {kind.value for kind in MessagingOperationTypeValues}


def test_no_deprecated_name_is_used() -> None:
    text = inspect.getsource(messaging_attributes)
    for name, value in vars(spans).items():
        if name.isupper() and isinstance(value, str) and value.startswith("messaging."):
            described = text.partition(f'Final = "{value}"')[2].partition('"""')[2]
            assert not described.lstrip().startswith("Deprecated"), value
