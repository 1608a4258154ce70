"""`lmeraser report`: one HTML page for those who answer for erasures. Imported within: it reads the ledger and git."""

import argparse
from pathlib import Path

from flows.cli.command import BAD_INPUT, Result

HELP = "write one HTML page: what was forgotten, whether it verifies, what it cost"
EXIT_CODES = {
    0: "the page is written; what does not verify is told in it",
    1: "a check or a step failed",
    2: BAD_INPUT,
}
EXAMPLES = ["lmeraser report", "lmeraser report --output erasures.html --as-of 2026-12-01"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", default="report.html", help="where to write it (default: report.html)")
    parser.add_argument("--as-of", metavar="TIME", help="what is late by then; else by the ledger's last event")


def act(options: argparse.Namespace) -> Result:
    from flows.cli.review import write
    from flows.project import Project
    from flows.report.gather import check_time, gather
    from lmeraser.core.digest import sha256
    from lmeraser.report.page import render, tally

    as_of = check_time(options.as_of)
    path = Path(options.output)
    facts = gather(Project.find(), as_of)
    page = render(facts)
    write(path, page, "--output")
    counts = tally(facts)
    result = {"output": options.output, "sha256": sha256(page), "bytes": len(page), "as_of": facts.as_of, **counts}
    unverified = counts["certificates"] - counts["certificates_valid"]
    requests = f"{counts['requests']} ({counts['certified']} certified, {counts['open']} open), {counts['late']} late"
    lines = [
        f"written             {options.output} ({len(page):,} bytes), as of {facts.as_of or 'no event yet'}",
        f"requests            {requests}",
        *([f"of type             {', '.join(f'{name} {n}' for name, n in counts['types'].items())}"] if counts["types"] else []),
        f"certificates        {counts['certificates_valid']} of {counts['certificates']} verify"
        + ("" if counts["chain"] else "; the chain is NOT whole"),
    ]
    if unverified or not counts["chain"]:
        lines.append("next                see the page's section on certificates, then `lmeraser verify certificates/*.json`")
    return result, lines
