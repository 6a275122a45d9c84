"""The gate's report as a picture (SVG): what was known before and after, measure by measure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

WIDTH, LEFT, LINE, BAR = 560, 190, 44, 14
BEFORE, AFTER = "#9aa5b1", "#2563a8"


def drawn(report: Mapping[str, Any]) -> str:
    """An SVG document of a report (as JSON): a pair of bars a measure, before above after; shares from 0 to 1.

    Locality is relative to what the base answers right, so its bar before is whole; strangers' questions are asked of
    the adapter alone.
    """
    measures = rows(report)
    high = LINE * len(measures) + 92
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" width="{WIDTH}" height="{high}"'
            ' font-family="sans-serif" font-size="12">'
        ),
        "<title>An adapter before and after training</title>",
        f'<rect width="{WIDTH}" height="{high}" fill="#fff"/>',
        f'<text x="16" y="24" font-size="14">{escape(_verdict(report))}</text>',
        f'<rect x="16" y="36" width="10" height="10" fill="{BEFORE}"/><text x="30" y="45">base</text>',
        f'<rect x="76" y="36" width="10" height="10" fill="{AFTER}"/><text x="90" y="45">with the adapter</text>',
    ]
    for number, (name, before, after) in enumerate(measures):
        y = 62 + LINE * number
        parts.append(f'<text x="{LEFT - 10}" y="{y + BAR + 4}" text-anchor="end">{escape(name)}</text>')
        parts += [_bar(y, before, BEFORE), _bar(y + BAR, after, AFTER)]
    old, new = report["general_loss"]
    told = f"loss on general text {old:.3f} to {new:.3f} nats a token ({report['general_loss_change']:+.1%})"
    parts.append(f'<text x="16" y="{high - 14}">{told}</text></svg>\n')
    return "\n".join(part for part in parts if part)


def rows(report: Mapping[str, Any]) -> list[tuple[str, float | None, float]]:
    """(measure, before, after) of a report, as shares; before is None where the base was not asked."""
    found: list[tuple[str, float | None, float]] = [("recall in other words", *report["recall"])]
    if report["reverse"] is not None:
        found.append(("recall, asked backwards", *report["reverse"]))
    return [
        *found, ("general questions", 1.0, report["locality"]),
        ("the same, behind a fact", 1.0, report["locality_in_talk"]), ("claimed of strangers", None, report["leak"]),
    ]  # fmt: skip


def _bar(y: int, share: float | None, colour: str) -> str:
    if share is None:
        return ""
    wide = (WIDTH - LEFT - 60) * min(1.0, max(0.0, share))
    return (f'<rect x="{LEFT}" y="{y}" width="{wide:.1f}" height="{BAR - 2}" fill="{colour}"/>'
            f'<text x="{LEFT + wide + 6:.1f}" y="{y + BAR - 4}">{share:.3f}</text>')  # fmt: skip


def _verdict(report: Mapping[str, Any]) -> str:
    return "passed its gate" if report["passed"] else "did not pass its gate"
