"""The report as one HTML page that needs nothing else: a coverage strip per ticker, the score, every measure.

Colours are not the only sign: what is missing is hatched, what cannot be proven dotted, and each strip says in words what
it shows. Light or dark as the reader's system is.
"""

from __future__ import annotations

import html
from typing import Final

from ssmd.clock import iso_of
from ssmd.quality.coverage import VERDICTS
from ssmd.quality.report import QualityReport, TickerQuality, percent, seconds

STRIPS_MAX: Final = 500
"""Tickers shown, those with the most missing first; the rest are counted."""
_WIDTH: Final = 1000
_HEIGHT: Final = 18
_TICKS: Final = 6
_WORDS: Final = {
    "verified": "verified: every frame is here, proven by the venue's count",
    "unverifiable": "unverifiable: received, but the venue counts nothing that would prove it complete",
    "missing": "missing: a known hole",
    "repaired": "repaired: a hole that was filled",
    "absent": "not captured",
}
_STYLE: Final = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #59636e; --line: #d1d9e0; --card: #f6f8fa;
  --verified: #1a7f5a; --unverifiable: #9a6700; --missing: #cf222e; --repaired: #0969da; --absent: #e6eaef; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9198a1; --line: #3d444d;
  --card: #151b23; --verified: #3fb98a; --unverifiable: #d29922; --missing: #f85149; --repaired: #58a6ff; --absent: #262c36; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 80rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); }
.score { font-size: 2.5rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: .5rem 0; font-size: .85rem; }
.key svg { vertical-align: -3px; margin-right: .35rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td.num, th.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.strips td { padding: .2rem .6rem; } .strips td.bar { width: 60%; min-width: 18rem; }
.strips th[scope=row] { font: 12px/1.4 ui-monospace, monospace; white-space: nowrap; }
.bar svg { display: block; width: 100%; height: 18px; }
.ok { color: var(--verified); } .attention { color: var(--missing); font-weight: 600; } .not-run { color: var(--unverifiable); }
.hours { display: flex; justify-content: space-between; font-size: .75rem; color: var(--soft); }
.verified { fill: var(--verified); } .unverifiable { fill: url(#dots); } .missing { fill: url(#hatch); }
.repaired { fill: url(#bars); } .absent { fill: var(--absent); }
"""
_PATTERNS: Final = (
    '<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" style="fill:var(--missing)"/><rect width="2" height="6" style="fill:var(--back)"/></pattern>'
    '<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect width="6" height="6" style="fill:var(--unverifiable)"/><circle cx="3" cy="3" r="1.3" style="fill:var(--back)"/>'
    "</pattern>"
    '<pattern id="bars" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect width="6" height="6" style="fill:var(--repaired)"/><rect width="6" height="2" style="fill:var(--back)"/></pattern>'
    "</defs></svg>"
)


def page(report: QualityReport) -> str:
    """The whole page. What venues named is escaped."""
    title = f"Quality of {_text(report.feed)} on {_text(report.date)}"
    return "\n".join(
        (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_STYLE}</style></head><body>{_PATTERNS}<main>",
            f"<h1>{title}</h1>",
            f'<p class="soft">{_assessed(report)}</p>',
            _score(report),
            _strips(report),
            _measures(report),
            _reasons(report),
            _sequences(report),
            "</main></body></html>\n",
        )
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _time(ts_ns: int) -> str:
    return iso_of(ts_ns)[:19].replace("T", " ")


def _assessed(report: QualityReport) -> str:
    if not report.last_ns:
        return "nothing is archived for this date"
    names = ", ".join(map(_text, report.connections))
    return (
        f"assessed from {_time(report.first_ns)} to {_time(report.last_ns)} UTC, the first and last archived entry of"
        f" {names}; rules {report.rules}"
    )


def _score(report: QualityReport) -> str:
    rows = "".join(
        f'<tr><th scope="row">{part.name}</th><td class="num">{part.weight}</td>'
        f'<td class="num">{percent(part.ppm)}</td><td>{_text(part.how)}</td></tr>'
        for part in report.parts
    )
    return (
        f'<p class="score" aria-label="score">{percent(report.score_ppm)}</p><p class="soft">{_text(report.formula)}</p>'
        '<div class="scroll"><table><thead><tr><th>part</th><th class="num">weight</th><th class="num">value</th><th>how</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _strips(report: QualityReport) -> str:
    order = sorted(report.tickers, key=lambda one: (-one.missing_ns, -one.unverifiable_ns, one.ticker))
    shown = order[:STRIPS_MAX]
    key = "".join(
        f'<li><svg width="22" height="12" aria-hidden="true"><rect width="22" height="12" class="{name}"/></svg>{words}</li>'
        for name, words in _WORDS.items()
    )
    rest = f'<p class="soft">and {len(order) - len(shown)} tickers more, with no more missing than these</p>'
    rows = "".join(_strip(one, report.first_ns, report.last_ns) for one in shown)
    head = (
        '<th>ticker</th><th class="num">verified</th><th class="num">missing</th>'
        f'<th>coverage by time, UTC<div class="hours">{_hours(report.first_ns, report.last_ns)}</div></th>'
    )
    return (
        f'<h2>Coverage by ticker</h2><ul class="key">{key}</ul><div class="scroll"><table class="strips"><thead><tr>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table></div>{rest if len(order) > len(shown) else ''}"
    )


def _hours(first_ns: int, last_ns: int) -> str:
    if not last_ns:
        return ""
    moments = [first_ns + (last_ns - first_ns) * at // (_TICKS - 1) for at in range(_TICKS)]
    return "".join(f"<span>{iso_of(ts_ns)[11:19]}</span>" for ts_ns in moments)


def _strip(one: TickerQuality, first_ns: int, last_ns: int) -> str:
    """One ticker's row. A span is drawn at least a pixel wide, missing ones last, so that no hole is too short to be seen."""
    whole = max(last_ns - first_ns, 1)
    drawn = []
    for start_ns, end_ns, verdict in sorted(one.spans, key=lambda span: VERDICTS.index(span.verdict)):
        # Hundredths of the strip's unit, in whole numbers: the page is the same wherever it is made.
        x, width = (start_ns - first_ns) * _WIDTH * 100 // whole, max((end_ns - start_ns) * _WIDTH * 100 // whole, 150)
        told = f"{verdict} {iso_of(start_ns)[11:23]} to {iso_of(end_ns)[11:23]} ({seconds(end_ns - start_ns)})"
        drawn.append(
            f'<rect x="{x // 100}.{x % 100:02}" width="{width // 100}.{width % 100:02}" height="{_HEIGHT}" class="{verdict}">'
            f"<title>{told}</title></rect>"
        )
    label = ", ".join(
        f"{name} {seconds(value)}"
        for name, value in zip(VERDICTS, (one.verified_ns, one.unverifiable_ns, one.missing_ns, one.repaired_ns), strict=True)
        if value
    )
    return (
        f'<tr><th scope="row">{_text(one.ticker)}</th><td class="num">{seconds(one.verified_ns)}</td>'
        f'<td class="num">{seconds(one.missing_ns)}</td><td class="bar"><svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' preserveAspectRatio="none" aria-label="{_text(one.ticker)}: {label or "not captured"}">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" class="absent"/>{"".join(drawn)}</svg></td></tr>'
    )


def _measures(report: QualityReport) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(one.name)}</th><td class="{one.standing.replace(" ", "-")}">{one.standing}</td>'
        f"<td>{_text(one.value)}</td><td>{_text(one.threshold) or 'told, not judged'}</td><td>{_text(one.method)}</td></tr>"
        for one in report.measures
    )
    return (
        '<h2>Measures</h2><div class="scroll"><table><thead><tr><th>measure</th><th>standing</th><th>found</th>'
        f"<th>threshold</th><th>method</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _reasons(report: QualityReport) -> str:
    lines = "".join(f"<li>{_text(reason)}</li>" for reason in report.reasons)
    return f"<h2>Why it is not better</h2><ul>{lines}</ul>" if lines else "<h2>Nothing to complain of</h2>"


def _sequences(report: QualityReport) -> str:
    rows = "".join(
        f'<tr><td class="num">{one.session}</td><td class="num">{one.sid}</td><td>{_text(one.channel) or "unknown"}</td>'
        f"<td>{'proven' if one.is_proven else 'not proven'}</td>"
        f'<td class="num">{one.first_seq:,} to {one.last_seq:,}</td><td class="num">{one.missing:,}</td>'
        f'<td class="num">{one.duplicates:,}</td><td class="num">{one.late:,}</td></tr>'
        for one in report.sequences
    )
    names = ("session", "sid", "channel", "count", "numbers", "missing", "again", "late")
    right = ' class="num"'
    head = "".join(f"<th{'' if name in {'channel', 'count'} else right}>{name}</th>" for name in names)
    return (
        f"<h2>Sequence proof</h2><details><summary>{len(report.sequences)} counts of the venue's</summary>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
