"""The report as one HTML page: self-contained, without scripts and without anything from elsewhere; equal facts give equal bytes.

Its Content-Security-Policy allows its own style sheet, by digest, and images within it; nothing else could load. Every value is
escaped by the template engine.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lmeraser.report import drawing
from lmeraser.report.facts import ABOUT, CertificateFacts, ReportFacts, RequestFacts, Work

TEMPLATES = Path(__file__).parent / "templates"
MOST_ROWS = 200  # of a table; more are counted
MOST_AUDITS = 30
MOST_POINTS = 40
NOTHING = "\u2013"  # a dash, where there is no value
FIRST = ("failed", "open", "waits")  # requests that somebody must look at stand before those that are over
KINDS = {"rebuild": "Rebuild and compare", "stores": "Scan of all stores", "membership": "Membership test (drill)"}
IN_WORDS = {
    "validated": "checked",
    "quarantined": "in effect",
    "removed": "in effect: retraining",
    "retrained": "in effect: verifying",
    "verified": "in effect: purging",
    "purged": "in effect: certifying",
}

T = TypeVar("T")


def render(facts: ReportFacts) -> bytes:
    """The page in UTF-8."""
    context: dict[str, Any] = {"facts": facts, **styled("style.css")}
    context |= {"count": tally(facts), "verdicts": verdicts(facts)}
    context |= _requests(facts) | _certificates(facts) | _accuracy(facts) | _clusters(facts) | _cost(facts.work) | _audits(facts)
    return engine().get_template("page.html").render(context).encode(errors="replace")


def styled(*names: str) -> dict[str, str]:
    """A page's style sheet, of some of the templates' files, and the digest by which its policy allows it."""
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {"style": Markup(style), "style_digest": digest}  # noqa: S704  (our own files)


@cache
def engine() -> Environment:
    """The template engine, which escapes every value."""
    engine = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters |= {
        "when": when,
        "coded": coded,
        "day": lambda at: when(at[:10] if at else None),
        "number": lambda value: NOTHING if value is None else f"{value:,}",
        "share": lambda value: NOTHING if value is None else f"{value:.4f}",
        "image": lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}",
        "plural": plural,
    }
    return engine


def when(at: str | None) -> Markup:
    """A time for people, `2026-11-28 01:21`, whose date stays on one line; the page says that it is UTC."""
    date, clock = (escape(at[:10]), escape(at[10:16].replace("T", " "))) if at else (escape(NOTHING), escape(""))
    return Markup(f'<span class="date">{date}</span>{clock}')  # noqa: S704  (escaped)


def coded(text: str) -> Markup:
    """A text with its parts between backticks as code; all of it escaped."""
    parts = [str(escape(part)) for part in text.split("`")]
    if len(parts) % 2 == 0:  # one without its other
        return escape(text)
    marked = (part if place % 2 == 0 else f"<code>{part}</code>" for place, part in enumerate(parts))
    return Markup("".join(marked))  # noqa: S704  (escaped above)


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def tally(facts: ReportFacts) -> dict[str, Any]:
    """The counts that the page begins with."""
    states = Counter(request.standing for request in facts.requests)
    valid = sum(certificate.problem is None for certificate in facts.certificates)
    return {
        "requests": len(facts.requests),
        "certified": states["done"],
        "open": states["open"] + states["failed"] + states["waits"],
        "late": sum(request.late for request in facts.requests),
        "types": types_of(facts.requests),
        "origins": dict(sorted(Counter(request.origin for request in facts.requests if request.origin).items())),
        "certificates": len(facts.certificates),
        "certificates_valid": valid,
        "chain": facts.chain.problem is None,
    }


def types_of(requests: Sequence[RequestFacts]) -> dict[str, int]:
    """How many requests there are of each type, people first, whatever the requests' own order is."""
    named = Counter(request.about for request in requests)
    return {
        about: named[about] for about in sorted(named, key=lambda about: [ABOUT.index(word) for word in about.split(" and ")])
    }


def verdicts(facts: ReportFacts) -> list[tuple[str, str]]:
    """What somebody must know first: (`good` or `bad` or `note`, a sentence)."""
    count = tally(facts)
    said = []
    if count["certificates"]:
        whole = count["certificates_valid"] == count["certificates"] and facts.chain.problem is None
        good = f"All {plural(count['certificates'], 'certificate')} verify, and their chain is whole."
        if count["certificates"] == 1:
            good = "The certificate verifies, and its chain is whole."
        said.append(("good", good) if whole else ("bad", "Not every certificate verifies, or the chain is not whole: see below."))
    missing = _uncertified(facts)
    if missing:
        said.append(("bad", f"{plural(missing, 'request')} certified by the ledger has no certificate here that verifies."))
    if facts.ledger.problem:
        said.append(("bad", "The ledger's chain of events is broken: see below."))
    if count["late"]:
        said.append(("bad", f"{plural(count['late'], 'request')} past the due date."))
    elif facts.requests:
        said.append(("good", "No request is past its due date."))
    failed = sum(audit.passed is False for audit in _last_of_each(facts))
    if failed:
        said.append(("bad", "An audit did not pass the last time it was made: see below."))
    if not facts.ledger.there and facts.certificates:
        said.append(("note", "There is no ledger here, so only what was certified is known: no request that is open or late."))
    elif not facts.requests:
        said.append(("note", "No request was received yet."))
    return said


def _uncertified(facts: ReportFacts) -> int:
    signed = {certificate.request_id for certificate in facts.certificates if certificate.problem is None}
    return sum(request.standing == "done" and request.request_id not in signed for request in facts.requests)


def _last_of_each(facts: ReportFacts) -> list[Any]:
    return list({audit.kind: audit for audit in facts.audits}.values())


def _cut(rows: Sequence[T], most: int) -> tuple[list[T], int]:
    """The rows that are shown, and how many are not."""
    return list(rows[:most]), max(0, len(rows) - most)


def _requests(facts: ReportFacts) -> dict[str, Any]:
    """Late ones first, then open ones, then the newest."""

    def order(request: RequestFacts) -> tuple[bool, int]:
        return not request.late, FIRST.index(request.standing) if request.standing in FIRST else len(FIRST)

    newest = facts.requests[::-1]
    rows, more = _cut(sorted(newest, key=order), MOST_ROWS)
    states = {request.request_id: IN_WORDS.get(request.state, request.state) for request in rows}
    return {"requests": rows, "requests_more": more, "request_states": states}


def _certificates(facts: ReportFacts) -> dict[str, Any]:
    """Those that do not verify first, then the newest."""

    def broken(certificate: CertificateFacts) -> bool:
        return certificate.problem is None

    newest = facts.certificates[::-1]
    rows, more = _cut(sorted(newest, key=broken), MOST_ROWS)
    return {"certificates": rows, "certificates_more": more}


def _accuracy(facts: ReportFacts) -> dict[str, Any]:
    erasures = [batch.at for batch in facts.work]
    chart = drawing.accuracy_chart(facts.history, erasures) if facts.history else None
    points, more = _cut(facts.history[::-1], MOST_POINTS)
    return {"accuracy_chart": chart, "points": points, "points_more": more, "erasures": len(erasures)}


def _clusters(facts: ReportFacts) -> dict[str, Any]:
    picture = drawing.cluster_map(facts.clusters, facts.tree) if facts.clusters else None
    rows, more = _cut(facts.clusters, MOST_ROWS)
    return {"cluster_map": picture, "clusters": rows, "clusters_more": more}


def sisa_retrained(work: Work) -> float:
    """Records that SISA is expected to train on again for a batch (Bourtoule et al. 2021, arXiv:1912.03817), without slices.

    As many shards as there are clusters, people spread evenly and at random: a shard stays if none of the people is in it.
    """
    return work.total * (1 - (1 - 1 / max(1, work.clusters)) ** work.people)


def _cost(work: Sequence[Work]) -> dict[str, Any]:
    """Totals over all batches, and a row for each of the newest."""
    ours, sisa = sum(batch.retrained for batch in work), sum(map(sisa_retrained, work))
    whole = sum(batch.total for batch in work)
    chart = None
    if whole:
        rows = [
            ("This model (measured)", ours, f"{ours:,} records", "ours"),
            ("SISA, as many shards as clusters (computed)", sisa, f"{sisa:,.0f} records", "peer"),
            ("Training everything again (computed)", whole, f"{whole:,} records", "peer"),
        ]
        chart = drawing.bars("cost-bars", "Records trained on again by all erasures", rows)
    rows_of_work, more = _cut(work[::-1], MOST_ROWS)
    shown = [(batch, sisa_retrained(batch)) for batch in rows_of_work]
    timed = [batch.seconds for batch in work if batch.seconds is not None]
    return {"cost_chart": chart, "work": shown, "work_more": more, "work_seconds": sum(timed) if timed else None}


def _audits(facts: ReportFacts) -> dict[str, Any]:
    rows, more = _cut(facts.audits[::-1], MOST_AUDITS)
    seconds = [audit.seconds for audit in facts.audits if audit.kind == "rebuild" and audit.seconds is not None]
    kinds: Mapping[str, str] = KINDS
    missing = [title for kind, title in KINDS.items() if kind not in {audit.kind for audit in facts.audits}]
    return {"audits": rows, "audits_more": more, "audit_kinds": kinds, "audits_never": missing,
            "rebuild_seconds": seconds[-1] if seconds else None}  # fmt: skip
