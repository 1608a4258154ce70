"""What a certificate says: an in-toto Statement v1 about one erasure, built from a typed `Erasure` and nothing else.

Source: in-toto Attestation Framework, Statement v1 (https://in-toto.io/Statement/v1). The bytes that are signed are the
statement's canonical JSON. docs/certificate-format.md shows one. It holds no subject, no record, no label and no image: every
field has a rule in `FORMATS`, which is checked before signing and when verifying; and what a statement says of the artifacts must
fit what it says of the plan (`lmeraser/prove/consistency.py`).

`images` is there only where single images were erased, and `rectified` where records were corrected, so that a certificate of
people is what it was.

Format 1 knew neither the project nor the state that the checks were made on; format 2 had no proofs of absence and named
no audit key. They are read, and no longer written.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from lmeraser.core.digest import canonical_json
from lmeraser.core.errors import VerificationError
from lmeraser.prove.absence import Absence, check_absence
from lmeraser.prove.consistency import check_consistency

if TYPE_CHECKING:  # whoever verifies a certificate needs no tables
    from lmeraser.erase.plan import Plan

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:lmeraser:erasure:v1"
FORMAT = 3

LIMITS = (
    "It covers the stores that it lists. Clones, backups, exported models, answers already given, free blocks of a disk, and the "
    "source unless `source` says that it was cleared are outside the project's control.",
    "The signature shows who issued it and that nobody changed it since. It does not show that the issuer told the truth: "
    "whoever holds the data can test that with `lmeraser audit --rebuild`.",
    "Equal bytes, from a rebuild with the retained records in the same environment, show that the artifacts are those of a model "
    "that never saw the people. They show nothing about copies, and nothing about other environments.",
    "Params were chosen before and are taken as given. A rate or a threshold that was tuned on data with the people in it may "
    "depend on them.",
    "An image that another person's record holds as well stays with that person. Similar images, and the people in other "
    "people's images, are not noticed.",
    "Subjects are keyed hashes of names as the manifest spelt them. Another spelling is another subject. Whoever has the subject "
    "key can test a name against them.",
    "`absence` shows that the people are not among those whom its root stands for. That these are the people in the records is "
    "the issuer's word: whoever holds the data can compute the root again with `lmeraser audit`.",
)

LIMIT_OF_IMAGES = (
    "Images are keyed hashes of their bytes. The same picture in another size or encoding is another image. Whoever has the "
    "subject key can test an image against them."
)


LIMIT_OF_CORRECTIONS = (
    "Corrections are keyed hashes of an image with its label and subject, as they were and as they are. The image stays, with "
    "the values that were given. That these are right is the word of whoever gave them."
)


@dataclass(frozen=True)
class Counts:
    """What was planned and done. `slots_*` are names of slots; the rest are numbers of records, clusters and yes or no."""

    records_removed: int
    records_retrained: int
    records_total: int
    clusters_total: int
    parts: tuple[str, ...]
    slots_retrained: tuple[str, ...]
    slots_emptied: tuple[str, ...]
    rebuild: bool
    exact: bool

    @classmethod
    def of(cls, plan: "Plan") -> "Counts":
        """The part of a plan that a certificate tells."""
        picked: dict[str, Any] = {count.name: getattr(plan, count.name) for count in fields(cls)}
        for name in ("parts", "slots_retrained", "slots_emptied"):
            picked[name] = tuple(picked[name])
        return cls(**picked)


@dataclass(frozen=True)
class Check:
    """A check that passed, and what it found, both in words with counts."""

    check: str
    result: str


@dataclass(frozen=True)
class Store:
    """Attributes: deleted: how many objects went; residue: how many a scan found afterwards, which must be 0; unknown: how many
    objects no known version of the pipeline names, so that nobody can say what they were made of."""

    store: str
    deleted: int
    residue: int
    unknown: int = 0


@dataclass(frozen=True)
class Erasure:
    """The facts of one erasure: all that a certificate can say.

    Attributes:
        project: the id of the project whose artifacts these are.
        pseudonyms, images: HMACs of the subjects and of images that were erased alone, made with the key that `subject_key_id`
            names; rectified: of records that were corrected, as `lmeraser/erase/corrections.py` writes them.
        locks, erased_list: SHA-256 of all locks and of the list of erased people that the checks were made on.
        received_at, completed_at: ISO 8601 with the offset of UTC.
        batch_requests: how many requests were carried out together with this one, itself included.
        served: path to SHA-256 of every file that is served after the erasure.
        changed: path to (before, after), as DVC names content (MD5); None where it did not exist.
        unchanged: how many artifacts have the same digest as before.
        absence: that the people are not among those who are retained.
        source: what happened to the place that the records came from, in words.
        audit_key_id: SHA-256 of the key by which requests are chosen whose erasure is rebuilt at once; rebuild_share: one of so
            many, 0: none.
    """

    project: str
    request_id: str
    pseudonyms: tuple[str, ...]
    subject_key_id: str
    locks: str
    erased_list: str
    received_at: str
    completed_at: str
    plan: Counts
    batch_requests: int
    served: Mapping[str, str]
    changed: Mapping[str, tuple[str | None, str | None]]
    unchanged: int
    environment: Mapping[str, str]
    fingerprint: str
    code_revision: str
    checks: tuple[Check, ...]
    stores: tuple[Store, ...]
    absence: Absence
    source: str
    approved: bool
    audit_key_id: str
    rebuild_share: int
    limits: tuple[str, ...] = LIMITS
    images: tuple[str, ...] = ()
    rectified: tuple[str, ...] = ()


@dataclass(frozen=True)
class Break:
    """A change of the signing key, signed with the new one: the last certificate's key and digest."""

    previous_key: str
    previous_head: str
    reason: str


def make_statement(erasure: Erasure, sequence: int, previous: str | None, broken: Break | None = None) -> dict[str, Any]:
    """The statement of an erasure as number `sequence` of the chain.

    Args: previous: SHA-256 of the certificate before, None for the first; broken: where the signing key changed.
    Raises: VerificationError if a value breaks its rule, nothing was checked, or residue was found: that is not signed.
    """
    predicate: dict[str, Any] = {
        "format": FORMAT,
        "project": erasure.project,
        "request_id": erasure.request_id,
        "subjects": sorted(set(erasure.pseudonyms)),
        "subject_key_id": erasure.subject_key_id,
        "state": {"locks": erasure.locks, "erased_list": erasure.erased_list},
        "sequence": sequence,
        "previous": previous,
        "received_at": erasure.received_at,
        "completed_at": erasure.completed_at,
        "plan": {
            name: sorted(value) if isinstance(value, tuple) else value
            for name, value in ((field.name, getattr(erasure.plan, field.name)) for field in fields(Counts))
        },
        "batch": {"requests": erasure.batch_requests},
        "artifacts": {path: {"before": old, "after": new} for path, (old, new) in erasure.changed.items()},
        "artifacts_unchanged": erasure.unchanged,
        "environment": dict(erasure.environment),
        "environment_fingerprint": erasure.fingerprint,
        "code_revision": erasure.code_revision,
        "checks": [{"check": check.check, "result": check.result} for check in erasure.checks],
        "stores": [asdict(store) for store in erasure.stores],
        "absence": erasure.absence.to_json(),
        "source": erasure.source,
        "approved": erasure.approved,
        "audit_key_id": erasure.audit_key_id,
        "rebuild_share": erasure.rebuild_share,
        "limits": list(erasure.limits),
    }
    if erasure.images:
        predicate["images"] = sorted(set(erasure.images))
        predicate["limits"] = [*predicate["limits"], LIMIT_OF_IMAGES]
    if erasure.rectified:
        predicate["rectified"] = sorted(set(erasure.rectified))
        predicate["limits"] = [*predicate["limits"], LIMIT_OF_CORRECTIONS]
    if broken is not None:
        predicate["break"] = {
            "previous_key": broken.previous_key,
            "previous_head": broken.previous_head,
            "reason": broken.reason,
        }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": path, "digest": {"sha256": digest}} for path, digest in sorted(erasure.served.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    check_content(statement)
    return statement


def payload_of(statement: Mapping[str, Any]) -> bytes:
    """The bytes that are signed, and whose SHA-256 the next certificate names."""
    return canonical_json(statement)


# rules


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Map:
    """An object whose names all obey one rule and whose values another."""

    name: Rule
    value: Any


def _like(pattern: str, words: str) -> Rule:
    compiled = re.compile(pattern, re.ASCII)
    return Rule(words, lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None)


def or_null(rule: Rule) -> Rule:
    return Rule(f"{rule.words}, or null", lambda value: value is None or rule.holds(value))


def _is_utc(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).utcoffset() == timedelta(0)
    except ValueError:
        return False


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        return False


# A line of text cannot move a terminal's cursor or hide behind directional marks: it is printed by `lmeraser verify`.
TEXT = Rule("a printable line of 1 to 500 characters", lambda v: isinstance(v, str) and 0 < len(v) <= 500 and v.isprintable())
COUNT = Rule("a whole number from 0", lambda v: type(v) is int and 0 <= v < 2**53)
NUMBER = Rule("a whole number from 1", lambda v: type(v) is int and 0 < v < 2**53)
NONE_LEFT = Rule("0: something of the people was still found", lambda v: type(v) is int and v == 0)
YES_NO = Rule("true or false", lambda v: isinstance(v, bool))
UTC_TIME = Rule("a time in UTC as ISO 8601 writes it", _is_utc)
REQUEST_ID = Rule("a UUID in lower case", _is_uuid)
SHA256 = _like(r"[0-9a-f]{64}", "64 hex digits")
MD5 = _like(r"[0-9a-f]{32}(\.dir)?", "an MD5 as DVC writes it")
CORRECTION = _like(r"[0-9a-f]{64}(:[0-9a-f]{64}){4}", "five keyed hashes of 64 hex digits with colons between")
SHORT_ID = _like(r"[0-9a-f]{16}", "16 hex digits")
SLOT = _like(r"[\w-]{1,64}", "a slot's name")
BITMAP = _like(r"[01]{0,256}", "a text of 0 and 1, at most 256")
PATH = _like(r"(?!.*\.\.)[\w.@+-]+(/[\w.@+-]+)*", "a relative path")

FIRST: dict[str, Any] = {
    "format": NUMBER,
    "request_id": REQUEST_ID,
    "subjects": [SHA256],
    "subject_key_id": SHORT_ID,
    "sequence": NUMBER,
    "previous": or_null(SHA256),
    "received_at": UTC_TIME,
    "completed_at": UTC_TIME,
    "plan": {
        "records_removed": COUNT,
        "records_retrained": COUNT,
        "records_total": COUNT,
        "clusters_total": COUNT,
        "slots_retrained": [SLOT],
        "slots_emptied": [SLOT],
        "rebuild": YES_NO,
        "exact": YES_NO,
    },
    "batch": {"requests": NUMBER},
    "artifacts": Map(PATH, {"before": or_null(MD5), "after": or_null(MD5)}),
    "artifacts_unchanged": COUNT,
    "environment": Map(TEXT, TEXT),
    "environment_fingerprint": SHORT_ID,
    "code_revision": TEXT,
    "checks": [{"check": TEXT, "result": TEXT}],
    "stores": [{"store": TEXT, "deleted": COUNT, "residue": NONE_LEFT}],
    "source": TEXT,
    "approved": YES_NO,
    "limits": [TEXT],
}
SECOND: dict[str, Any] = FIRST | {
    "project": SHORT_ID,
    "state": {"locks": SHA256, "erased_list": SHA256},
    "plan": FIRST["plan"] | {"parts": [SLOT]},
    "stores": [FIRST["stores"][0] | {"unknown": COUNT}],
}
PROOF: dict[str, Any] = {"subject": SHA256, "bitmap": BITMAP, "siblings": [SHA256], "neighbour": or_null(SHA256)}
PREDICATE: dict[str, Any] = SECOND | {
    "absence": {"root": SHA256, "proofs": [PROOF]},
    "audit_key_id": SHA256,
    "rebuild_share": COUNT,
}
FORMATS = {1: FIRST, 2: SECOND, FORMAT: PREDICATE}
OPTIONAL: dict[str, Any] = {"images": [SHA256], "rectified": [CORRECTION]}  # of formats from 2 on
BREAK: dict[str, Any] = {"previous_key": SHA256, "previous_head": SHA256, "reason": TEXT}
SUBJECT: list[Any] = [{"name": PATH, "digest": {"sha256": SHA256}}]
NEVER_EMPTY = {
    1: ("subjects", "checks", "limits"),
    2: ("subjects", "checks", "stores", "limits"),
    FORMAT: ("subjects", "checks", "stores", "limits"),
}  # nothing checked is a failure


def check_rule(value: Any, rule: Any, where: str, version: int) -> None:
    """Compare a value with its rule: a `Rule`, a list of one, a `Map`, or an object of some.

    Raises: VerificationError with the place and the rule, never the value.
    """
    if isinstance(rule, Rule):
        if not rule.holds(value):
            raise VerificationError(f"{where} is not {rule.words}")
    elif isinstance(rule, list):
        if not isinstance(value, list):
            raise VerificationError(f"{where} is not a list")
        for place, element in enumerate(value, start=1):
            check_rule(element, rule[0], f"{where} {place}", version)
    elif not isinstance(value, dict):
        raise VerificationError(f"{where} is not an object")
    elif isinstance(rule, Map):
        for place, (name, entry) in enumerate(value.items(), start=1):
            check_rule(name, rule.name, f"name {place} in {where}", version)
            check_rule(entry, rule.value, f"{where} {place}", version)
    else:
        missing = sorted(rule.keys() - value.keys())
        if missing:
            raise VerificationError(f"{where} has no {missing[0]}")
        if value.keys() - rule.keys():
            raise VerificationError(f"{where} has {len(value.keys() - rule.keys())} fields that format {version} does not have")
        for name, inner in rule.items():
            check_rule(value[name], inner, f"{where}.{name}", version)


def check_content(statement: Mapping[str, Any]) -> None:
    """Check a statement's subject and predicate against their rules.

    Raises: VerificationError; it tells the field and what was expected, never the value.
    """
    predicate = statement.get("predicate")
    if not isinstance(predicate, dict):
        raise VerificationError("predicate is not an object")
    version = predicate.get("format")
    if type(version) is not int or version not in FORMATS:
        raise VerificationError(
            f"its format is none of those known here ({', '.join(map(str, sorted(FORMATS)))}); use the lmeraser that issued it, "
            "or a newer"
        )
    check_rule(statement.get("subject"), SUBJECT, "subject", version)
    if not statement["subject"]:
        raise VerificationError("subject is empty: it names no file that is served")
    optional = {name: rule for name, rule in OPTIONAL.items() if version > 1 and name in predicate}
    rules = FORMATS[version] | optional
    check_rule({name: value for name, value in predicate.items() if name != "break"}, rules, "predicate", version)
    for name in (*NEVER_EMPTY[version], *sorted(optional)):
        if not predicate[name] and not (name == "subjects" and optional):
            raise VerificationError(f"predicate.{name} is empty")
    if datetime.fromisoformat(predicate["completed_at"]) < datetime.fromisoformat(predicate["received_at"]):
        raise VerificationError("predicate.completed_at is before received_at")
    if (predicate["sequence"] == 1) != (predicate["previous"] is None):
        raise VerificationError(
            "predicate.previous does not fit predicate.sequence: the first certificate, and no other, has none"
        )
    if "break" in predicate:
        check_rule(predicate["break"], BREAK, "predicate.break", version)
        if predicate["break"]["previous_head"] != predicate["previous"]:
            raise VerificationError("predicate.break.previous_head is not predicate.previous")
    if version > 1:
        check_consistency(predicate["plan"], predicate["artifacts"])
    if version > 2:
        _check_absence(predicate)


def _check_absence(predicate: Mapping[str, Any]) -> None:
    try:
        check_absence(Absence.from_json(predicate["absence"]), predicate["subjects"])
    except VerificationError as error:
        raise VerificationError(f"predicate.absence: {error}") from None
