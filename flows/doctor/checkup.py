"""A checkup: checks by name, each of which gives findings. One that fails to look is a finding too, so a checkup always ends."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmeraser.core.errors import LmeraserError

OK, WARN, WRONG = "ok", "warn", "wrong"


@dataclass(frozen=True)
class Finding:
    """Attributes: verdict: OK, WARN (it works, but mend it) or WRONG (something would fail); advice: what to do."""

    check: str
    verdict: str
    text: str
    advice: str = ""


Look = Callable[[], Sequence[tuple[str, str, str]]]  # verdict, text, advice


def fine(text: str) -> tuple[str, str, str]:
    return OK, text, ""


def warn(text: str, advice: str) -> tuple[str, str, str]:
    return WARN, text, advice


def wrong(text: str, advice: str) -> tuple[str, str, str]:
    return WRONG, text, advice


def examine(checks: Sequence[tuple[str, Look]]) -> list[Finding]:
    """Look at everything, in order. Our own errors say what is wrong and what to do; of others only the kind is told."""
    findings: list[Finding] = []
    for name, look in checks:
        try:
            findings += [Finding(name, *result) for result in look()]
        except LmeraserError as error:
            findings.append(Finding(name, WRONG, *divided(str(error))))
        except Exception as error:  # whatever a broken environment raises: its text may name a file of somebody's
            findings.append(
                Finding(name, WRONG, f"it could not be looked at ({type(error).__name__})", "report this if it stays")
            )
    return findings


def divided(line: str) -> tuple[str, str]:
    """What an error line says is so, and what it says to do."""
    text, _, advice = line.partition("; ")
    if not advice:
        text, colon, advice = line.rpartition(": ")
        return (text, advice) if colon else (line, "")
    return text, advice


def is_sound(findings: Sequence[Finding]) -> bool:
    return bool(findings) and all(finding.verdict != WRONG for finding in findings)


def to_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [asdict(finding) for finding in findings]
