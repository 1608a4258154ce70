"""Once a day: delete what is past its period (section `retention` of params.yaml), and propose who may have to go.

What has a period: logs, Prefect's runs (its own server deletes those, as `vacuum` tells it to), and words that people wrote.
What has none: the ledger's events. Each holds the digest of the one before; certificates, the choice of rebuilds and the notice
of a restored ledger stand on them, and they name nobody: ids, kinds, counts, digests.
"""

import os
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.project import Project, locked
from flows.requests.proposals import Outcome, propose
from lmeraser.core.errors import StepFailedError
from lmeraser.core.params import Retention

AUDIT = "audit"  # how the names of logs begin that tell of audits
DAY = 86_400  # s


@dataclass(frozen=True)
class Cleared:
    """Attributes: logs: files that went; words: that people wrote, and that went."""

    logs: int
    words: int


def vacuum(retention: Retention) -> dict[str, str]:
    """Settings by which a Prefect server deletes runs that ended so long ago, with their logs; none: it keeps them."""
    if retention.runs_days is None:
        return {}
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(retention.runs_days * DAY),
    }


def upkeep(project: Project) -> tuple[Cleared, Outcome]:
    """Both. Raises: BadInputError where it cannot be told who may have to go; what is past its period is deleted then."""
    cleared = clear(project)
    return cleared, propose(project, None)


def clear(project: Project) -> Cleared:
    """Delete what is past its period. May be repeated, and killed anywhere. Raises: StepFailedError."""
    retention = project.params.retention
    now = datetime.fromtimestamp(project.ledger.time(), UTC)
    words = 0
    if retention.words_days is not None:
        ended, approved = (now - timedelta(days=days) for days in (retention.words_days, _floor(retention, retention.words_days)))
        words = project.ledger.drop_words(*(when.isoformat(timespec="seconds") for when in (ended, approved)))
        project.ledger.scrub()
    logs = 0
    if retention.logs_days is not None:
        project.layout.private_state.mkdir(exist_ok=True, mode=0o700)
        with locked(project.layout.private_state / "upkeep.lock", "another process clears the logs; waiting for it"):
            logs = _clear_logs(project.layout.private_state / "logs", retention, now.date())
    return Cleared(logs, words)


def _floor(retention: Retention, days: int) -> int:
    """No shorter than what audits need."""
    return max(days, retention.audit_days)


def _clear_logs(folder: Path, retention: Retention, today: date) -> int:
    """Set each log of the day aside under its date, and delete those whose period is over. Returns how many files went."""
    gone = 0
    try:
        for path in sorted(folder.glob("*.log")):
            if path.is_symlink() or not path.is_file():
                continue
            if path.stat().st_size:
                _set_aside(path, path.with_name(f"{path.name}.{today.isoformat()}"))
        for path in sorted(folder.glob("*.log.*")):
            day = _day_of(path)
            days = _floor(retention, retention.logs_days or 0) if path.name.startswith(AUDIT) else retention.logs_days or 0
            if day is not None and day < today - timedelta(days=days):
                path.unlink(missing_ok=True)
                gone += 1
    except OSError as error:
        raise StepFailedError(
            f"a log in .lmeraser/logs cannot be set aside or deleted ({error.strerror}); mend it and retry"
        ) from error
    return gone


def _set_aside(path: Path, kept: Path) -> None:
    """Append a log to another file, and empty it in place: whoever writes it has it open. What is written in between is lost."""
    descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    with path.open("rb") as source, os.fdopen(descriptor, "ab") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    os.truncate(path, 0)


def _day_of(path: Path) -> date | None:
    """The day on which a log was set aside; None of a file that we did not name."""
    try:
        return date.fromisoformat(path.name.rpartition(".")[2])
    except ValueError:
        return None


def told(cleared: Cleared, outcome: Outcome) -> dict[str, Any]:
    return {"cleared": asdict(cleared), **outcome.to_json()}
