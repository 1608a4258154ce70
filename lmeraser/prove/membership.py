"""The membership test: does a tuned cluster betray that a person's records tuned it, and is that gone after their deletion?

A rank test (a Monte Carlo test, Dwass 1957): a person's loss under the model in question is ranked among their losses under K
models that were tuned without them with other seeds. If the model in question never saw them either, every rank is as likely, so
p = (1 + references that lose no more) / (K + 1) is valid for any K and any model. A single person says little: the same test
on the models *before* deletion (the positive control) tells whether it can see anything at all.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy.stats import binomtest

from lmeraser.core.errors import BadInputError

ALPHA = 0.05  # share of false alarms, of one person and of the verdict
LEAST = 19  # references: with fewer no p reaches ALPHA
Outcome = Literal["pass", "fail", "no power"]


def rank_p(observed: float, references: Sequence[float]) -> float:
    """One-sided p of a loss that is lower than those of models that never saw the person.

    Ties, and losses that are no numbers, count against it.

    Raises: BadInputError for fewer than 19 references.
    """
    check_references(len(references))
    return (1 + sum(not loss > observed for loss in references)) / (len(references) + 1)


def check_references(count: int) -> None:
    if count < LEAST:
        raise BadInputError(f"--retrainings is {count}, expected at least {LEAST}: with fewer no result could be significant")


@dataclass(frozen=True)
class Verdict:
    """What a drill with some people says.

    Attributes:
        control_detected: people who stand out in the models that did see them; after_flagged: in those that did not.
        power: share of people whom the test detects, with its exact 95 % interval (Clopper and Pearson 1934).
        verdict: "fail" if more stand out after deletion than chance allows; else "no power" if the control does not stand out
            more than chance does; else "pass".
    """

    verdict: Outcome
    people: int
    retrainings: int
    control_detected: int
    after_flagged: int
    power: float
    power_interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"power_interval": list(self.power_interval)}


def judge(control: Sequence[float], after: Sequence[float], retrainings: int) -> Verdict:
    """Args: control, after: p of each person before and after deletion, in the same order; at least one."""
    people = len(control)
    detected = sum(p <= ALPHA for p in control)
    flagged = sum(p <= ALPHA for p in after)
    power = binomtest(detected, people, ALPHA, alternative="greater")
    interval = binomtest(detected, people).proportion_ci(0.95, "exact")
    verdict: Outcome = "pass"
    if binomtest(flagged, people, ALPHA, alternative="greater").pvalue <= ALPHA:
        verdict = "fail"
    elif power.pvalue > ALPHA:
        verdict = "no power"
    bounds = round(float(interval.low), 4), round(float(interval.high), 4)
    return Verdict(verdict, people, retrainings, detected, flagged, round(detected / people, 4), bounds)


def in_words(verdict: Verdict) -> list[str]:
    """For people; says what was not shown, too."""
    low, high = verdict.power_interval
    lines = [
        f"before deletion     {verdict.control_detected} of {verdict.people} people stand out (positive control); power "
        f"{verdict.power:.2f}, 95 % interval {low:.2f} to {high:.2f}",
        f"after deletion      {verdict.after_flagged} of {verdict.people} stand out, against {ALPHA:.0%} expected by chance",
        f"references          {verdict.retrainings} retrainings a person, without them, with other seeds",
    ]
    meaning = {
        "pass": "pass: the test sees who tuned a cluster, and no longer sees them after deletion",
        "fail": "FAIL: erased people stand out more than chance allows; run `lmeraser audit --rebuild`",
        "no power": "no power: too few people stand out before deletion, so silence afterwards shows nothing; this is no pass. "
        "More people (--people 20), or people with more records, may give it power",
    }
    return [*lines, meaning[verdict.verdict]]
