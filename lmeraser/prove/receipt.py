"""The receipt of an erasure: what changed, what it cost, what was checked. Holds no personal data.

A signed certificate takes its place later; until then the receipt is unsigned, and says so.
"""

from typing import Any

from lmeraser.core.environment import environment, fingerprint
from lmeraser.prove.lock import Outs, compare

LIMITS = (
    "unsigned",
    "equality of artifacts is shown by `lmeraser audit --rebuild`, not by this receipt",
    "copies outside this workspace are not covered: caches, remotes, clones, backups, and the source unless it says erased",
)


def make_receipt(
    request_id: str, plan: dict[str, Any], before: Outs, after: Outs, checks: list[str], facts: dict[str, Any]
) -> dict[str, Any]:
    """Args: checks: what was verified, in words; facts: device, code_revision, received_at, completed_at, source."""
    changed = compare(before, after).differing
    device = facts["device"]
    return {
        "kind": "lmeraser erasure receipt v1",
        "request_id": request_id,
        "plan": plan,
        "artifacts": {path: {"before": before.get(path), "after": after.get(path)} for path in changed},
        "artifacts_unchanged": len(after) - len([path for path in changed if path in after]),
        "checks": checks,
        "environment": environment(device),
        "environment_fingerprint": fingerprint(device),
        "limits": list(LIMITS),
        **{name: value for name, value in facts.items() if name != "device"},
    }
