"""The commonest mistakes in registry files, each with the exact words a user gets."""

import hashlib
import shutil
from pathlib import Path

import pytest

from ssmd.registry.findings import InvalidRegistry
from ssmd.registry.loader import check_registry, load_registry

REPOSITORY = Path(__file__).parents[2]
DATE = "2026-11-22"
DEV = "environments/kalshi-dev.yaml"
FEED = "feeds/kalshi.yaml"


@pytest.fixture
def exchanges(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REPOSITORY / "exchanges", tmp_path / "exchanges"))


def findings_after(exchanges: Path, file: str, old: str, new: str) -> list[str]:
    path = exchanges / file
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    return [str(finding) for finding in check_registry(exchanges, date=DATE)[1]]


MISTAKES = [
    (
        "tab",
        DEV,
        "  endpoint: simulator",
        "\tendpoint: simulator",
        "exchanges/environments/kalshi-dev.yaml:12:1: a tab cannot indent or separate YAML (use spaces) [tab]",
    ),
    (
        "wrong-indent",
        DEV,
        "  key: $key:kalshi",
        "   key: $key:kalshi",
        (
            'exchanges/environments/kalshi-dev.yaml:13:7: a second ": " on one line, or a wrong indent'
            ' (put text with ": " in quotes) [yaml-syntax]'
        ),
    ),
    (
        "outdented",
        DEV,
        "    markets: 20",
        "   markets: 20",
        (
            "exchanges/environments/kalshi-dev.yaml:16:4: wrong indent: this line does not line up with the lines above"
            " (align it with its neighbours) [indent]"
        ),
    ),
    (
        "key-without-colon",
        DEV,
        "feed: kalshi",
        "feed kalshi",
        'exchanges/environments/kalshi-dev.yaml:9:1: a key without ":" (write key: value) [yaml-syntax]',
    ),
    (
        "duplicate-key",
        DEV,
        "feed: kalshi",
        "feed: kalshi\nfeed: kalshi",
        (
            'exchanges/environments/kalshi-dev.yaml:10:1: key "feed" stands twice, first in line 9'
            " (delete one of them) [duplicate-key]"
        ),
    ),
    (
        "unknown-key",
        DEV,
        "  endpoint: simulator",
        "  endpoint: simulator\n  ticker_max: 5",
        (
            'exchanges/environments/kalshi-dev.yaml:13:3: unknown key "ticker_max" in capture'
            ' (did you mean "tickers_max"?) [unknown-key]'
        ),
    ),
    (
        "unknown-key-at-the-top",
        DEV,
        "feed: kalshi",
        "zzz: 1\nfeed: kalshi",
        (
            'exchanges/environments/kalshi-dev.yaml:9:1: unknown key "zzz" (known: keys, name, status, feed, schema, timezone,'
            " schedule, capture, transport, journal, storage, replicate, cache, tape, archive, gateway, temporal, retention,"
            " shards, limits) [unknown-key]"
        ),
    ),
    (
        "missing-field",
        DEV,
        "schema: market:1\n",
        "",
        'exchanges/environments/kalshi-dev.yaml:3:1: the document lacks the field "schema" (add schema:) [missing-field]',
    ),
    (
        "name-not-file",
        DEV,
        "name: kalshi-dev",
        "name: kalshi-devel",
        (
            'exchanges/environments/kalshi-dev.yaml:8:7: name is "kalshi-devel", but the file is kalshi-dev.yaml'
            " (write name: kalshi-dev, or rename the file) [name-not-file]"
        ),
    ),
    (
        "bad-name",
        DEV,
        "name: kalshi-dev",
        "name: Kalshi Dev",
        (
            "exchanges/environments/kalshi-dev.yaml:8:7: name must be a name: 1 to 63 of a-z, 0-9 and -, no - at either end,"
            ' found "Kalshi Dev" [wrong-form]'
        ),
    ),
    (
        "quoted-number",
        DEV,
        "    markets: 20",
        '    markets: "20"',
        (
            'exchanges/environments/kalshi-dev.yaml:16:14: capture.simulator.markets must be an integer, found the text "20"'
            " (write 20 without quotes) [wrong-type]"
        ),
    ),
    (
        "number-out-of-range",
        DEV,
        "    markets: 20",
        "    markets: 0",
        "exchanges/environments/kalshi-dev.yaml:16:14: capture.simulator.markets must be 1..100000, found 0 [out-of-range]",
    ),
    (
        "unquoted-time",
        DEV,
        "feed: kalshi",
        "timezone: 3:00\nfeed: kalshi",
        (
            "exchanges/environments/kalshi-dev.yaml:9:11: timezone is an unquoted time, which YAML reads as a number: 3:00"
            ' (write "3:00") [unquoted-time]'
        ),
    ),
    (
        "unquoted-boolean",
        FEED,
        "display_name: Kalshi",
        "display_name: yes",
        'exchanges/feeds/kalshi.yaml:3:15: display_name must be text, found the boolean yes (write "yes") [wrong-type]',
    ),
    (
        "bad-date",
        FEED,
        "2026-03-12",
        "2026-02-30",
        "exchanges/feeds/kalshi.yaml:19:21: versions[1].effective_from: 2026-02-30 is not in the calendar [bad-date]",
    ),
    (
        "date-in-another-form",
        FEED,
        "2026-03-12",
        "12.03.2026",
        (
            "exchanges/feeds/kalshi.yaml:19:21: versions[1].effective_from must be a date YYYY-MM-DD,"
            " found the text 12.03.2026 [bad-date]"
        ),
    ),
    (
        "overlapping-versions",
        FEED,
        "2026-03-12",
        "2026-03-11",
        (
            "exchanges/feeds/kalshi.yaml:19:21: effective_from 2026-03-11 lies in the version above,"
            " which holds until 2026-03-11"
            " [overlap]"
        ),
    ),
    (
        "unknown-status",
        FEED,
        "status: active",
        "status: actve",
        (
            "exchanges/feeds/kalshi.yaml:5:9: status must be one of active, deprecated, draft; found the text actve"
            ' (did you mean "active"?) [unknown-value]'
        ),
    ),
    (
        "nothing-where-a-mapping-belongs",
        DEV,
        "feed: kalshi",
        "gateway:\nfeed: kalshi",
        "exchanges/environments/kalshi-dev.yaml:9:9: gateway must be a mapping, found nothing [wrong-type]",
    ),
    (
        "text-where-a-list-belongs",
        DEV,
        "  endpoint: simulator",
        "  endpoint: simulator\n  tickers: KXBTC15M",
        (
            "exchanges/environments/kalshi-dev.yaml:13:12: capture.tickers must be a list, found the text KXBTC15M"
            " (write [a, b], or lines that begin with -) [wrong-type]"
        ),
    ),
    (
        "unknown-feed",
        DEV,
        "feed: kalshi",
        "feed: kalsi",
        'exchanges/environments/kalshi-dev.yaml:9:7: feed "kalsi" is not in feeds/ (did you mean "kalshi"?) [unknown-feed]',
    ),
    (
        "missing-schema",
        DEV,
        "schema: market:1",
        "schema: trades:1",
        'exchanges/environments/kalshi-dev.yaml:10:9: schema "trades" is not in schemas/ (known: market) [unknown-schema]',
    ),
    (
        "missing-definition",
        "schemas/market.yaml",
        "definition: market.capnp",
        "definition: trade.capnp",
        ('exchanges/schemas/market.yaml:9:17: definition "trade.capnp" is not a file beside market.yaml [missing-definition]'),
    ),
    (
        "unknown-schema-version",
        DEV,
        "schema: market:1",
        "schema: market:2",
        'exchanges/environments/kalshi-dev.yaml:10:9: schema "market" has no version 2 (known: 1) [unknown-schema]',
    ),
    (
        "schema-without-version",
        DEV,
        "schema: market:1",
        "schema: market",
        (
            'exchanges/environments/kalshi-dev.yaml:10:9: schema must be NAME:VERSION, found "market"'
            " (for example market:1) [wrong-form]"
        ),
    ),
    (
        "undefined-key",
        DEV,
        "key: $key:kalshi",
        "key: $key:kalshy",
        (
            'exchanges/environments/kalshi-dev.yaml:13:8: "$key:kalshy" names a key that is not defined'
            ' (did you mean "kalshi"?) [unknown-key-reference]'
        ),
    ),
    (
        "secret-in-the-file",
        DEV,
        "key: $key:kalshi",
        "key: 3f1c-secret",
        (
            "exchanges/environments/kalshi-dev.yaml:13:8: capture.key must be a reference; the registry never holds a secret"
            " (write $key:NAME, and define NAME under keys) [secret-in-registry]"
        ),
    ),
    (
        "unknown-endpoint",
        DEV,
        "endpoint: simulator",
        "endpoint: simulater",
        (
            'exchanges/environments/kalshi-dev.yaml:12:13: endpoint "simulater" is not among those of'
            ' feed "kalshi" from 2026-03-12'
            ' (did you mean "simulator"?) [unknown-endpoint]'
        ),
    ),
    (
        "unknown-timezone",
        DEV,
        "feed: kalshi",
        "timezone: America/NewYork\nfeed: kalshi",
        (
            'exchanges/environments/kalshi-dev.yaml:9:11: time zone "America/NewYork" is not known'
            ' (did you mean "America/New_York"?) [unknown-timezone]'
        ),
    ),
    (
        "anchor",
        DEV,
        "fields: [api_key, private_key]",
        "fields: &f [api_key, private_key]\n    rotation_days: *f",
        "exchanges/environments/kalshi-dev.yaml:6:13: anchors and aliases are not used here (write the value out) [alias]",
    ),
    (
        "wrong-url",
        DEV,
        "feed: kalshi",
        "journal: {url: http://host:4222}\nfeed: kalshi",
        (
            "exchanges/environments/kalshi-dev.yaml:9:16: journal.url must be embedded or begin with nats:// or tls://,"
            ' found "http://host:4222" [wrong-url]'
        ),
    ),
    (
        "pause-that-ends-before-it-starts",
        FEED,
        'end: "05:00"',
        'end: "02:00"',
        (
            "exchanges/feeds/kalshi.yaml:36:16: the pause ends at 02:00, which is not after its start 03:00"
            " (a pause past midnight is two: one until 24:00, one from 00:00 of the next day) [bad-interval]"
        ),
    ),
    (
        "unquoted-time-of-day",
        FEED,
        'start: "03:00"',
        "start: 03:00",
        (
            "exchanges/feeds/kalshi.yaml:35:18: versions[1].calendar.weekly_pauses[0].start is an unquoted time,"
            ' which some YAML readers take for a number: 03:00 (write "03:00") [unquoted-time]'
        ),
    ),
    (
        "time-of-day-that-is-none",
        FEED,
        'start: "03:00"',
        'start: "25:00"',
        (
            "exchanges/feeds/kalshi.yaml:35:18: versions[1].calendar.weekly_pauses[0].start must be a time of day"
            ' "HH:MM", found "25:00" [wrong-form]'
        ),
    ),
    (
        "shards-that-overlap",
        DEV,
        "feed: kalshi",
        "shards: {a: {tickers: [KXBTC*]}, b: {tickers: [KXBTC15M*], rest: true}}\nfeed: kalshi",
        (
            'exchanges/environments/kalshi-dev.yaml:9:48: "KXBTC15M*" of shard "b" overlaps "KXBTC*" of shard "a"'
            " (a ticker belongs to one shard) [shard-overlap]"
        ),
    ),
    (
        "shards-that-leave-tickers-out",
        DEV,
        "feed: kalshi",
        "shards: {a: {tickers: [KXBTC*]}, b: {tickers: [KXETH*]}}\nfeed: kalshi",
        (
            "exchanges/environments/kalshi-dev.yaml:9:9: no shard takes tickers that no selector names"
            " (add rest: true to one shard) [shards-not-total]"
        ),
    ),
    (
        "schedule-that-ends-before-it-starts",
        DEV,
        "feed: kalshi",
        'schedule: {start: "09:00", end: "08:00"}\nfeed: kalshi',
        (
            "exchanges/environments/kalshi-dev.yaml:9:33: schedule.end 08:00 is not after schedule.start 09:00"
            " (a trading day is one calendar date: move the time zone instead) [bad-interval]"
        ),
    ),
    (
        "limit-below-what-is-kept",
        DEV,
        "feed: kalshi",
        "limits: {disk_bytes: 1000}\nfeed: kalshi",
        (
            "exchanges/environments/kalshi-dev.yaml:9:22: limits.disk_bytes 1000 is less than tape.bytes_max 17179869184"
            " (raise it, or lower tape.bytes_max) [limit-too-low]"
        ),
    ),
    (
        "unknown-pause-day",
        FEED,
        "day: thursday",
        "day: thurday",
        (
            "exchanges/feeds/kalshi.yaml:34:16: versions[1].calendar.weekly_pauses[0].day must be one of friday, monday,"
            ' saturday, sunday, thursday, tuesday, wednesday; found the text thurday (did you mean "thursday"?) [unknown-value]'
        ),
    ),
]


@pytest.mark.parametrize(("file", "old", "new", "message"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_names_file_line_column_rule_and_mend(exchanges: Path, file: str, old: str, new: str, message: str) -> None:
    assert message in findings_after(exchanges, file, old, new)


def test_shipped_registry_has_no_mistake() -> None:
    registry = load_registry(REPOSITORY / "exchanges", date=DATE)
    assert sorted(registry.environments) == ["kalshi-demo", "kalshi-dev", "kalshi-prod"]
    assert registry.environments["kalshi-dev"].capture.simulator.seed == 7
    assert registry.feeds["kalshi"].versions[1].effective_from == "2026-03-12"


def test_lists_all_mistakes_of_all_files_at_once(exchanges: Path) -> None:
    findings_after(exchanges, FEED, "status: active", "status: aktive")
    findings_after(exchanges, DEV, "markets: 20", 'markets: "20"')
    findings_after(exchanges, DEV, "endpoint: simulator", "endpint: simulator")
    findings_after(exchanges, "schemas/market.yaml", "version: 1", "version: one")
    with pytest.raises(InvalidRegistry) as caught:
        load_registry(exchanges, date=DATE)
    assert [(finding.file, finding.line, finding.rule) for finding in caught.value.findings] == [
        ("exchanges/environments/kalshi-dev.yaml", 12, "missing-field"),
        ("exchanges/environments/kalshi-dev.yaml", 12, "unknown-key"),
        ("exchanges/environments/kalshi-dev.yaml", 16, "wrong-type"),
        ("exchanges/feeds/kalshi.yaml", 5, "unknown-value"),
        ("exchanges/schemas/market.yaml", 7, "wrong-type"),
    ]
    assert str(caught.value).startswith("the registry has 5 mistakes:\n  exchanges/environments/kalshi-dev.yaml:12:3: ")


def test_password_in_a_url_is_refused_without_being_shown(exchanges: Path) -> None:
    found = findings_after(exchanges, DEV, "feed: kalshi", "cache: {url: redis://me:hunter2@host}\nfeed: kalshi")
    assert len(found) == 1
    assert "[secret-in-registry]" in found[0]
    assert "hunter2" not in found[0]


def test_schema_file_that_changed_is_named(exchanges: Path) -> None:
    with (exchanges / "schemas/market.capnp").open("a") as file:
        file.write("# edited\n")
    findings = check_registry(exchanges, date=DATE)[1]
    assert [(finding.file, finding.line, finding.rule) for finding in findings] == [
        ("exchanges/schemas/market.yaml", 10, "hash-mismatch")
    ]


def test_schema_that_is_not_the_packaged_one_is_refused(exchanges: Path) -> None:
    definition = exchanges / "schemas/market.capnp"
    old = hashlib.sha256(definition.read_bytes()).hexdigest()
    definition.write_bytes(definition.read_bytes() + b"# edited\n")
    new = hashlib.sha256(definition.read_bytes()).hexdigest()
    path = exchanges / "schemas/market.yaml"
    path.write_text(path.read_text().replace(old, new))
    findings = check_registry(exchanges, date=DATE)[1]
    assert {finding.rule for finding in findings} == {"schema-not-packaged"}
    assert {finding.file.rsplit("/", 1)[1] for finding in findings} == {
        "kalshi-demo.yaml",
        "kalshi-dev.yaml",
        "kalshi-prod.yaml",
    }


def test_status_of_feed_and_schema_binds_active_environments_only(exchanges: Path) -> None:
    findings_after(exchanges, FEED, "status: active", "status: draft")
    for name in ("kalshi-demo", "kalshi-prod"):
        path = exchanges / f"environments/{name}.yaml"
        path.write_text("status: deprecated\n" + path.read_text())
    findings = check_registry(exchanges, date=DATE)[1]
    assert [(finding.file, finding.rule) for finding in findings] == [
        ("exchanges/environments/kalshi-dev.yaml", "feed-not-active")
    ]


def test_feed_version_is_the_one_in_force_on_the_date(exchanges: Path) -> None:
    findings = check_registry(exchanges, date="2026-03-11")[1]
    assert [finding.rule for finding in findings] == ["unknown-endpoint", "unknown-endpoint"]  # cents: prod only
    assert [finding.rule for finding in check_registry(exchanges, date="2020-01-01")[1]] == ["no-feed-version"] * 3


def test_a_broken_feed_is_not_reported_as_unknown_too(exchanges: Path) -> None:
    (exchanges / FEED).write_text("name: [\n")
    findings = check_registry(exchanges, date=DATE)[1]
    assert [finding.file for finding in findings] == ["exchanges/feeds/kalshi.yaml"]


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        (b"", "empty"),
        (b"# only a comment\n", "empty"),
        (b"\xff\xfe\x00", "encoding"),
        (b"name: a\x00b\n", "yaml-syntax"),
        (b"[" * 5000, "yaml-depth"),
        (b"- " * 5000, "yaml-depth"),
        (b"name: &a [*a]\n", "alias"),
        (b"a: 1\n---\nb: 2\n", "yaml-syntax"),
        (b"!!python/object/apply:os.system ['true']\n", "tag"),
        (b"just text\n", "wrong-type"),
        (b"? {a: b}\n: c\n", "key"),
        (b"x: " + b"y" * (1 << 20), "file-size"),
    ],
)
def test_text_that_is_no_document(exchanges: Path, payload: bytes, rule: str) -> None:
    (exchanges / DEV).write_bytes(payload)
    findings = check_registry(exchanges, date=DATE)[1]
    assert {finding.file for finding in findings} == {"exchanges/environments/kalshi-dev.yaml"}
    assert rule in {finding.rule for finding in findings}


def test_crlf_and_byte_order_mark_are_read(exchanges: Path) -> None:
    path = exchanges / DEV
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert check_registry(exchanges, date=DATE)[1] == []
    path.write_bytes(path.read_bytes().replace(b"markets: 20", b"markets: x"))
    finding = check_registry(exchanges, date=DATE)[1][0]
    assert (finding.line, finding.column) == (16, 14)


def test_unreadable_and_misnamed_files_and_missing_folders(exchanges: Path) -> None:
    (exchanges / "environments/other.yml").write_text("name: other\n")
    (exchanges / "environments/gone.yaml").symlink_to("nowhere")
    shutil.rmtree(exchanges / "feeds")
    found = [(finding.file, finding.rule) for finding in check_registry(exchanges, date=DATE)[1]]
    assert ("exchanges/environments/other.yml", "file-name") in found
    assert ("exchanges/environments/gone.yaml", "unreadable") in found
    assert ("exchanges/feeds", "missing-folder") in found
