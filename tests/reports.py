"""Facts for report pages: nothing, everything that a page can show, and thousands of requests."""

from dataclasses import replace

import numpy as np

from lmeraser.report.facts import (
    Accuracy,
    Audit,
    Branch,
    CertificateFacts,
    ChainFacts,
    ClusterFacts,
    LedgerFacts,
    ReportFacts,
    RequestFacts,
    Work,
)
from lmeraser.report.frames import prompt_of

NOTHING = ReportFacts(None, None, 5)
DAY = "2026-11-{:02d}T09:30:00+00:00"


def identity(number: int) -> str:
    return f"5eed0000-0000-4000-8000-{number:012d}"


def request(number: int, state: str = "certified", late: bool = False, words: str | None = None) -> RequestFacts:
    done = state == "certified"
    times = (DAY.format(1), DAY.format(28), late, DAY.format(1), DAY.format(2) if done else None)
    return RequestFacts(identity(number), state, *times, words, 7, 1, 4)


def everything(words: str = "the reason") -> ReportFacts:
    """A page with every section, every state and every verdict. Args: words: wherever a text from outside may stand."""
    states = ("received", "validated", "quarantined", "removed", "blocked", "rejected", "failed", "certified")
    requests = tuple(request(number, state, state == "failed", words) for number, state in enumerate(states))
    certificates = (
        CertificateFacts("00001.json", None, 1, identity(7), DAY.format(2), "a" * 64),
        CertificateFacts("certificate 2 of 2", words),
    )
    tree = (
        Branch(0, 3, 0, -1, None),
        Branch(0, 1, 1, 0, "c00"),
        Branch(2, 3, 1, 0, None),
        Branch(2, 2, 2, 2, "c02"),
        Branch(3, 3, 2, 2, None),
    )
    frame = np.zeros((3, 8, 8), np.float32)
    frame[:, 0] = 0.5
    return ReportFacts(
        project="0123456789abcdef",
        as_of=DAY.format(20),
        least=5,
        ledger=LedgerFacts(True, 40, words),
        requests=requests,
        certificates=certificates,
        chain=ChainFacts(words, (1, "b" * 64), ("a" * 64,), (words,)),
        history=(Accuracy(DAY.format(1), "abc", 0.9, 0.88), Accuracy(DAY.format(3), "workspace", 0.91, None)),
        unread=1,
        work=(Work(DAY.format(2), 2, 3, 1, 4, 40, 200, 12.5, False),),
        audits=(
            Audit("rebuild", DAY.format(3), True, "32 artifacts compared, 0 differ", 50.2),
            Audit("stores", DAY.format(4), False, words),
            Audit("membership", DAY.format(5), None, "8 people"),
        ),
        clusters=(ClusterFacts("c00", 40, 0.95, 1, False), ClusterFacts("c02", None, None, 0, True)),
        tree=tree,
        prompts=(prompt_of("c00", frame), prompt_of("c01", frame[:1])),
        prompts_withheld=1,
        metrics={"accuracy.served": 0.91},
        environment={"numpy": "2.4", "onednn": words},
        problems=(words,),
    )


def sound(count: int = 3) -> ReportFacts:
    """A project where all is well: `count` requests, each certified."""
    requests = tuple(request(number) for number in range(count))
    certificates = tuple(
        CertificateFacts(f"{n + 1:05}-{identity(n)}.json", None, n + 1, identity(n), DAY.format(2), "a" * 64)
        for n in range(count)
    )
    chain = ChainFacts(None, (count, "b" * 64), ("a" * 64,), ("It covers the stores that it lists.",), True)
    work = tuple(Work(DAY.format(2), 1, 1, 1, 4, 40, 200, 3.0, False) for _ in range(count))
    good = replace(everything(), ledger=LedgerFacts(True, 9 * count), requests=requests, certificates=certificates, chain=chain)
    return replace(good, work=work, audits=everything().audits[:1], unread=0, problems=())
