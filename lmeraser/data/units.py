"""The unit that goes to a cluster as a whole: a subject with all its records, or a record alone."""

from lmeraser.core.digest import sha256
from lmeraser.data.records import Record


def unit_of(record: Record, unit: str) -> str:
    """32 hex digits; a function of the subject (unit subject) or of the record (unit record)."""
    return record.id if unit == "record" else sha256(b"unit\x1f" + record.subject.encode())[:32]
