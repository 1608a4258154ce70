"""What a statement says of the artifacts must fit its plan: a change that the plan does not name was not planned.

The names are those of the pipeline's outs (`lmeraser/core/layout.py`; a test compares them with dvc.yaml).
"""

import re
from collections.abc import Mapping
from typing import Any

from lmeraser.core.errors import VerificationError

PARTS, CLUSTERS = "artifacts/split/private", "artifacts/cluster"
# What every erasure may change; what is made of public records alone changes in a rebuild only.
ALWAYS = (PARTS, CLUSTERS, "artifacts/validate/passed.json", "artifacts/validate/report.json", "artifacts/head/head.safetensors")
METRICS = "metrics/"
EMBEDDED = re.compile(r"artifacts/embed/(?P<part>[^/]+)")
TUNED = re.compile(r"artifacts/tune/(?P<slot>[^/]+)\.safetensors")


def may_change(path: str, plan: Mapping[str, Any]) -> bool:
    """Whether a plan names the out at a path. Args: plan: parts, slots_retrained, slots_emptied, rebuild, exact."""
    if plan["rebuild"] or path in ALWAYS or path.startswith(METRICS):
        return True
    embedded, tuned = EMBEDDED.fullmatch(path), TUNED.fullmatch(path)
    if embedded:
        return embedded["part"] in plan["parts"]
    if tuned:
        return not plan["exact"] or tuned["slot"] in {*plan["slots_retrained"], *plan["slots_emptied"]}
    return False


def check_consistency(plan: Mapping[str, Any], artifacts: Mapping[str, Mapping[str, str | None]]) -> None:
    """Raise VerificationError where artifacts changed that the plan does not name, or where what it removed changed nothing."""
    changed = {path for path, digests in artifacts.items() if digests["before"] != digests["after"]}
    if len(changed) < len(artifacts):
        raise VerificationError("predicate.artifacts lists something that did not change")
    for place, path in enumerate(artifacts, start=1):
        if not may_change(path, plan):
            raise VerificationError(f"predicate.artifacts {place} changed, and predicate.plan does not name it")
    if plan["rebuild"]:
        return
    if plan["records_removed"] and PARTS not in changed:
        raise VerificationError("predicate.plan removed records, but predicate.artifacts says that no part changed")
    if (plan["slots_retrained"] or plan["slots_emptied"]) and CLUSTERS not in changed:
        raise VerificationError("predicate.plan retrained clusters, but predicate.artifacts says that no cluster changed")
