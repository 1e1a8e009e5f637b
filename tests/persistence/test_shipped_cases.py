"""The cases that the eventsourcing library ships for persistence modules, on a real nats-server."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import UUID, uuid4

import msgspec
import pytest
from eventsourcing.persistence import ProcessRecorder, StoredEvent, Tracking, TrackingRecorder
from eventsourcing.tests import application as application_cases
from eventsourcing.tests import persistence as cases
from eventsourcing.tests import projection as projection_cases
from eventsourcing.utils import Environment, get_topic

from ssmd.services.embedded_servers import RunningServer
from ssmd.streams import persistence
from ssmd.streams.persistence import JetStreamFactory
from ssmd.streams.persistence_recorders import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamProcessRecorder,
    JetStreamTrackingRecorder,
)

HOSTILE = ["a.b", "*", ">", "a b", "%2E", "é\n", "日本", "\N{PILE OF POO}", "$JS.API", "x" * 5000, "..", "-", "%", "\x00"]
_NUMBERS = itertools.count(1)


def variables(url: str) -> dict[str, str]:
    return {
        "PERSISTENCE_MODULE": persistence.__name__,
        "JETSTREAM_URL": url,
        "JETSTREAM_STREAM_PREFIX": f"t{secrets.token_hex(6)}",
    }


class OnServer:
    """A factory on streams of the test's own."""

    url: str

    @pytest.fixture(autouse=True)
    def _factory(self, journal_server: RunningServer) -> Iterator[None]:
        self.url = journal_server.url
        self.factory = JetStreamFactory(Environment("Cases", variables(journal_server.url)))
        yield
        self.factory.close()


class HostileIds:
    """String ids that are subjects' wildcards, separators, spaces, controls, and too long for one."""

    def new_originator_id(self) -> UUID | str:
        number = next(_NUMBERS)
        return f"{HOSTILE[number % len(HOSTILE)]}{'' if number <= len(HOSTILE) else number}"


class TestAggregateRecorder(OnServer, cases.AggregateRecorderTestCase):
    def create_recorder(self) -> JetStreamAggregateRecorder:
        recorder = self.factory.aggregate_recorder()
        assert isinstance(recorder, JetStreamAggregateRecorder)
        return recorder


class TestAggregateRecorderHostileIds(HostileIds, TestAggregateRecorder):
    pass


class TestApplicationRecorder(OnServer, cases.ApplicationRecorderTestCase[JetStreamApplicationRecorder]):
    def create_recorder(self) -> JetStreamApplicationRecorder:
        recorder = self.factory.application_recorder()
        assert isinstance(recorder, JetStreamApplicationRecorder)
        return recorder

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestApplicationRecorderHostileIds(HostileIds, TestApplicationRecorder):
    test_concurrent_no_conflicts = None  # type: ignore[assignment]  # seconds of load, to which ids are nothing


class TestTrackingRecorder(OnServer, cases.TrackingRecorderTestCase):
    def create_recorder(self) -> TrackingRecorder:
        return self.factory.tracking_recorder()


class TestProcessRecorder(OnServer, cases.ProcessRecorderTestCase):
    def create_recorder(self) -> ProcessRecorder:
        return self.factory.process_recorder()


class TestProcessRecorderHostileIds(HostileIds, TestProcessRecorder):
    test_performance = None  # type: ignore[assignment]  # as above


class TestNonInterleaving(OnServer, cases.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> Any:
        return self.factory.application_recorder()


class SubclassedTrackingRecorder(JetStreamTrackingRecorder):
    pass


class TestInfrastructureFactory(cases.InfrastructureFactoryTestCase[JetStreamFactory]):
    @pytest.fixture(autouse=True)
    def _environment(self, journal_server: RunningServer) -> None:
        self.env = Environment("Cases", variables(journal_server.url))

    def setUp(self) -> None:
        super().setUp()

    def expected_factory_class(self) -> type[JetStreamFactory]:
        return JetStreamFactory

    def expected_aggregate_recorder_class(self) -> type[JetStreamAggregateRecorder]:
        return JetStreamAggregateRecorder

    def expected_application_recorder_class(self) -> type[JetStreamApplicationRecorder]:
        return JetStreamApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[JetStreamTrackingRecorder]:
        return JetStreamTrackingRecorder

    def tracking_recorder_subclass(self) -> type[JetStreamTrackingRecorder]:
        return SubclassedTrackingRecorder

    def expected_process_recorder_class(self) -> type[JetStreamProcessRecorder]:
        return JetStreamProcessRecorder


class InEnvironment:
    """The variables stand in the process's environment, where the library's applications look for them."""

    @pytest.fixture(autouse=True)
    def _environ(self, journal_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in variables(journal_server.url).items():
            monkeypatch.setitem(os.environ, name, value)  # noqa: TID251 - the library's way to be configured


class TestExampleApplication(InEnvironment, application_cases.ExampleApplicationTestCase):
    expected_factory_topic = get_topic(JetStreamFactory)


@pytest.mark.filterwarnings("default:.log. is deprecated:DeprecationWarning")
class TestApplication(InEnvironment, application_cases.ApplicationTestCase):
    pass


class CountersView(JetStreamTrackingRecorder, projection_cases.EventCountersView):
    """Counters kept as values beside the trackings."""

    def _count(self, key: str) -> int:
        return int(self.get_value(key) or b"0")

    def _increment(self, key: str, tracking: Tracking) -> None:
        self.insert_tracking_with(tracking, lambda values: {key: b"%d" % (int(values[key] or b"0") + 1)}, key)

    def get_created_event_counter(self) -> int:
        return self._count("created")

    def get_subsequent_event_counter(self) -> int:
        return self._count("subsequent")

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self._increment("created", tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self._increment("subsequent", tracking)


class TestCountersView(OnServer, projection_cases.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> projection_cases.EventCountersView:
        view = self.factory.tracking_recorder(CountersView)
        assert isinstance(view, CountersView)
        return view


class _ProjectionEnvironment:
    env: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _set_environment(self, journal_server: RunningServer) -> None:
        type(self).env = variables(journal_server.url)


class TestProjection(_ProjectionEnvironment, projection_cases.AggregateEventCountersProjectionTestCase):
    view_class = CountersView


class TestEventSourcedProjection(_ProjectionEnvironment, projection_cases.EventSourcedProjectionTestCase):
    pass


def test_ids_are_given_back_as_the_kind_they_were(journal_url: str) -> None:
    factory = JetStreamFactory(Environment("Kinds", variables(journal_url)))
    recorder = factory.application_recorder()
    ids: list[UUID | str] = [uuid4(), "text", *HOSTILE, ""]
    recorder.insert_events([StoredEvent(one, 1, "topic", msgspec.json.encode(str(one))) for one in ids])
    assert [one.originator_id for one in recorder.select_notifications(None, 100)] == ids
    for one in ids:
        assert [event.state for event in recorder.select_events(one)] == [msgspec.json.encode(str(one))]
    factory.close()
