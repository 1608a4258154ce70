"""The chain of events: none can be changed, left out, put in or moved unnoticed, even with a digest that fits it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lmeraser.core.errors import VerificationError
from lmeraser.erase.ledger_events import GENESIS, LedgerEvent, check_events, event_digest

KINDS = ("received", "validated", "removed", "certified")


def digested(event: LedgerEvent) -> LedgerEvent:
    """The event with the digest that fits it: what somebody would write who knows how."""
    return replace(event, digest=event_digest(event.seq, event.request_id, event.at, event.kind, event.data, event.previous))


def chain_of(kinds: Sequence[str]) -> list[LedgerEvent]:
    events: list[LedgerEvent] = []
    for seq, kind in enumerate(kinds, start=1):
        previous = events[-1].digest if events else GENESIS
        events.append(
            digested(LedgerEvent(seq, f"request-{seq % 2}", "2026-11-27T00:00:00Z", kind, {"count": seq}, previous, ""))
        )
    return events


chains = st.lists(st.sampled_from(KINDS), min_size=2, max_size=8).map(chain_of)


@given(chains)
def test_chain_as_it_was_written_holds(events: list[LedgerEvent]) -> None:
    check_events(events)


@given(chains, st.data())
def test_event_changed_with_a_digest_that_fits_is_seen_by_the_next(events: list[LedgerEvent], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(events) - 2))
    events[place] = digested(replace(events[place], data={"count": -1}))
    with pytest.raises(VerificationError, match=f"event {place + 2} of the ledger"):
        check_events(events)


@given(chains, st.data())
def test_event_left_out_and_all_behind_it_numbered_anew_is_seen(events: list[LedgerEvent], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(events) - 2))
    left = [digested(replace(event, seq=seq)) for seq, event in enumerate(events[:place] + events[place + 1 :], start=1)]
    with pytest.raises(VerificationError, match=f"event {place + 1} of the ledger"):
        check_events(left)


@given(chains, st.data())
def test_events_that_change_places_are_seen(events: list[LedgerEvent], data: st.DataObject) -> None:
    first, second = sorted(data.draw(st.lists(st.integers(0, len(events) - 1), min_size=2, max_size=2, unique=True)))
    events[first], events[second] = events[second], events[first]
    numbered = [digested(replace(event, seq=seq)) for seq, event in enumerate(events, start=1)]
    assume(numbered != chain_of([event.kind for event in events]))
    with pytest.raises(VerificationError):
        check_events(numbered)
