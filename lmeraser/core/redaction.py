"""Lines for places that cannot forget (the ledger, Prefect's database): what may name a person in them is taken out.

Our own messages hold no name and no path. What other programs say may, and may be quoted in ours; so whatever looks like a path,
an address or a file is taken out there, unless it is a place of the project itself.
"""

import re

LONGEST = 500  # characters
GONE = "[…]"
EDGES = "()[]{}<>'\"`,;:.!?"
OWN = re.compile(
    r"(?:artifacts|metrics|certificates|tune)(?:/[a-z]{1,16}[0-9]{0,5}(?:\.[a-z]{1,12})?){0,3}|tune/[0-9]{2,}/dvc\.(?:yaml|lock)"
    r"|(?:data/)?(?:erased\.json|certificate-keys\.pem|project-id|digits\.csv)|\.lmeraser(?:/[a-z]{1,16}(?:\.[a-z]{1,8})?)?|\.dvc(?:/[a-z]{1,16})?"
    r"|(?:dvc|params|prefect)\.(?:yaml|lock)|(?:metrics|report|passed|recipe|clusters|quarantine)\.json|[a-z]{1,12}\.(?:safetensors|parquet|csv|py)"
    r"|(?:source|image|pretrain|features|skeleton|projection|embed|cluster|tune|head|serve|evaluate|service|review)(?:\.[a-z_0-9]{1,20}){1,2}"
    r"|[a-z]+@[a-z][a-z0-9]{0,15}|\d+/\d+|[a-z0-9+]+://…"
)
SUSPECT = re.compile(r"[/\\@]|\w\.[A-Za-z]\w{1,11}\b")


CLAUSE = re.compile(r"(; |: )")


def _is_suspect(word: str) -> bool:
    bare = word.strip(EDGES)
    return bool(SUSPECT.search(bare)) and not OWN.fullmatch(bare) and not OWN.fullmatch(bare.rstrip("/"))


def storable(text: str) -> str:
    """One printable line of at most 500 characters, without the clauses that hold what may be a path, an address or a file.

    The whole clause goes: a name may have blanks, and nobody can tell where a path begins.
    """
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    clauses = CLAUSE.split(line)
    return "".join(GONE if any(map(_is_suspect, clause.split())) else clause for clause in clauses)[:LONGEST]
