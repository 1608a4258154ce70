"""The ledger's clock in the hands of a test, instead of the machine's."""

from datetime import UTC, datetime, timedelta

import pytest

from lmeraser.erase.ledger import Ledger

DAY = 86_400.0  # s


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def day(self, days: int) -> str:
        """The date so many days from now, in UTC."""
        return (datetime.fromtimestamp(self.now, UTC) + timedelta(days=days)).date().isoformat()

    def rule(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every ledger that is opened from here on goes by this clock."""
        monkeypatch.setattr(Ledger.open.__func__, "__defaults__", (self,))  # type: ignore[attr-defined]
