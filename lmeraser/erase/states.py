"""The states of a request and which may follow which. The ledger stores them; nothing else decides them.

    proposed ─ received, or rejected: somebody may have to go, and nothing is done for it until a person or a rule accepts it
    received ─ validated ─ (approved) ─ quarantined ─ removed ─ retrained ─ verified ─ purged ─ certified
        │          │                                                                            final
        ├─ rejected  (final: unknown subject, already erased, nothing would be left, cancelled, withdrawn)
        └─ blocked   (public records: received again once the same id comes with --include-public; or set aside, because with the
                      other open requests nothing would be left: received again when `resume` finds that it can be carried out;
                      or on hold: in effect and not carried out, quarantined again when the hold is released or ends)
    any open state ─ failed (attempts used up; `resumed` to the state that was reached)
    a state from removed on ─ set back to removed or retrained, where the working tree shows that it is not so (any more)

Statuses of OpenDSR 2.0 (opendsr.org): what a controller is told.
"""

WAY = ("received", "validated", "approved", "quarantined", "removed", "retrained", "verified", "purged", "certified")
CERTIFIED, REJECTED, BLOCKED, FAILED = "certified", "rejected", "blocked", "failed"
PROPOSED = "proposed"  # in the ledger, and in effect for nobody
FINAL = (CERTIFIED, REJECTED)
HOLD = "hold"  # why a request is blocked that stays in effect
STATES = (PROPOSED, *WAY, REJECTED, BLOCKED, FAILED)

OPENDSR = {
    PROPOSED: "pending",
    "received": "pending",
    "validated": "pending",
    "blocked": "pending",
    "rejected": "cancelled",
    "certified": "completed",
}  # every other state is in_progress


def status(state: str) -> str:
    """The OpenDSR 2.0 status of a state: pending, in_progress, completed or cancelled."""
    return OPENDSR.get(state, "in_progress")


def reached(state: str, wanted: str) -> bool:
    """Whether a state on the way is `wanted` or comes after it."""
    return WAY.index(state) >= WAY.index(wanted)


def may_follow(old: str, new: str) -> bool:
    """Whether a request may go from one state to the other. Steps are taken in order; approval may be left out."""
    if old in FINAL or PROPOSED in (old, new):  # nothing becomes a proposal: it begins as one
        return old == PROPOSED and new in ("received", REJECTED)
    if new == FAILED:
        return old in WAY
    if old == FAILED:
        return new in WAY  # back to what was reached: the ledger checks which
    if new in (REJECTED, BLOCKED):  # what nothing was done for yet
        return old in (*WAY[: WAY.index("removed")], BLOCKED)
    if old == BLOCKED:
        return new in ("received", "quarantined")  # the second after a hold: the ledger checks that
    gap = WAY.index(new) - WAY.index(old)
    return gap == 1 or (old, new) == ("validated", "quarantined")
