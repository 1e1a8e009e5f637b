from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from ssmd.clock import ManualClock
from ssmd.errors import Misconfigured
from ssmd.telemetry.logging import WITHHELD, configure_logging, log_level, withhold

NOW_NS = 1_778_763_600_000_000_001


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_by_the_given_clock_who_and_what() -> None:
    stream, clock = io.StringIO(), ManualClock(NOW_NS)
    log = structlog.get_logger()
    configure_logging("connector", clock, stream)
    with structlog.contextvars.bound_contextvars(session=17):
        log.info("connected", url="wss://venue.example/ws", at=(1, 2), ts=5)
    clock.advance(999_999_999)
    log.warning("stale")
    log.debug("not wanted")
    assert stream.getvalue() == (
        '{"ts":"2026-05-14T13:00:00.000000001Z","level":"info","component":"connector","event":"connected",'
        '"url":"wss://venue.example/ws","at":[1,2],"ts_":5,"session":17}\n'
        '{"ts":"2026-05-14T13:00:01.000000000Z","level":"warning","component":"connector","event":"stale"}\n'
    )


def test_no_secret_passes_under_any_name_depth_or_text() -> None:
    stream = io.StringIO()
    configure_logging("gateway", ManualClock(), stream)
    pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIhunter2\n-----END RSA PRIVATE KEY-----"
    try:
        int("no number")
    except ValueError as error:
        error.add_note(f"cannot load {pem} from redis://user:hunter2@host/0")
        structlog.get_logger().exception(
            "failed",
            api_key="hunter2",
            headers={"KALSHI-ACCESS-SIGNATURE": "hunter2", "Content-Type": "json"},
            nested=[{"Authorization": b"hunter2"}, {"client_secret": ["hunter2"]}],
            body=pem.encode(),
            cut="-----BEGIN PRIVATE KEY-----\nMIIhunter2",
            key="raw/dev/kalshi",
        )
    assert "hunter2" not in stream.getvalue()
    (line,) = lines(stream)
    assert line["headers"] == {"KALSHI-ACCESS-SIGNATURE": WITHHELD, "Content-Type": "json"}
    assert line["key"] == "raw/dev/kalshi"
    assert f"cannot load {WITHHELD} from redis://{WITHHELD}@host/0" in str(line["exception"])
    assert "Traceback" in str(line["exception"])


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("lost redis://user:p@hunter2@host:1/0", f"lost redis://{WITHHELD}@host:1/0"),
        ("nats://a:hunter2@h1:1,nats://b:hunter2@h2:1", f"nats://{WITHHELD}@h1:1,nats://{WITHHELD}@h2:1"),
        (f"refused ssmd_abcdefgh2345_{'hunter2-_' * 4}hunter2 twice", f"refused {WITHHELD} twice"),
        (f"no user SU{'HUNTER2Z' * 7}, or so", f"no user {WITHHELD}, or so"),
        ("{'authorization': 'Bearer hunter2'}", f"{{'authorization': 'Bearer {WITHHELD}'}}"),
        ("https://host/a@b and key SUMMER of ssmd_up", "https://host/a@b and key SUMMER of ssmd_up"),
    ],
)
def test_secrets_are_known_by_their_looks(said: str, shown: str) -> None:
    assert withhold("event", said) == shown


def test_what_libraries_log_comes_out_the_same_way() -> None:
    stream = io.StringIO()
    configure_logging("gateway", ManualClock(), stream)
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").error("lost %s", "nats://a:b@h:1")
    assert lines(stream) == [
        {
            "ts": "1970-01-01T00:00:00.000000000Z",
            "level": "error",
            "component": "gateway",
            "event": f"lost nats://{WITHHELD}@h:1",
            "logger": "some.library",
        }
    ]


def test_values_that_json_lacks_are_shown_as_text() -> None:
    assert withhold("error", OSError(5, "broken")) == "OSError(5, 'broken')"
    assert withhold("payload", b"\xff\x00ok") == "\\xff\x00ok"


def test_nothing_that_is_logged_can_break_logging() -> None:
    stream = io.StringIO()
    configure_logging("gateway", ManualClock(), stream)
    structlog.get_logger().info("odd \udcff", n=2**80, f=float("nan"), **{"\udcfe": object})
    assert [(line["event"], line["n"], line["f"]) for line in lines(stream)] == [("odd \\udcff", 2**80, None)]


@pytest.mark.parametrize(
    ("variables", "expected"), [({}, "info"), ({"SSMD_LOG_LEVEL": ""}, "info"), ({"SSMD_LOG_LEVEL": "Debug"}, "debug")]
)
def test_the_log_level_is_a_setting(variables: dict[str, str], expected: str) -> None:
    assert log_level(variables) == expected


def test_a_log_level_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(Misconfigured) as found:
        log_level({"SSMD_LOG_LEVEL": "loud"})
    assert found.value.message == "SSMD_LOG_LEVEL is 'loud'; expected debug, info, warning, error"
    assert found.value.mend == "export SSMD_LOG_LEVEL=info"
