"""Lines for places that cannot forget (the ledger, Prefect's database): what may name a person in them is taken out.

Our own messages hold no name and no path. What other programs say may, and may be quoted in ours; so every word that looks like a
path, an address or a file is replaced there, unless it is a place of the project itself.
"""

import re

LONGEST = 500  # characters
GONE = "[…]"
EDGES = "()[]{}<>'\"`,;:.!?"
OWN = re.compile(
    r"(?:artifacts|metrics|certificates|tune)(?:/[a-z]{1,16}[0-9]{0,5}(?:\.[a-z]{1,12})?){0,3}|tune/[0-9]{2,}/dvc\.(?:yaml|lock)"
    r"|(?:data/)?(?:erased\.json|certificate-keys\.pem|project-id|digits\.csv)|\.lmeraser(?:/[a-z]{1,16}(?:\.[a-z]{1,8})?)?|\.dvc(?:/[a-z]{1,16})?"
    r"|(?:dvc|params|prefect)\.(?:yaml|lock)|(?:metrics|report|passed|recipe|clusters|quarantine)\.json|[a-z]{1,12}\.(?:safetensors|parquet|csv|py)"
    r"|[a-z]+@[a-z][a-z0-9]{0,15}|\d+/\d+|[a-z0-9+]+://…"
)
SUSPECT = re.compile(r"[/\\@]|\w\.[A-Za-z]\w{1,11}\b")


def _word(word: str) -> str:
    bare = word.strip(EDGES)
    if not SUSPECT.search(bare) or OWN.fullmatch(bare) or OWN.fullmatch(bare.rstrip("/")):
        return word
    return word.replace(bare, GONE)


def storable(text: str) -> str:
    """One printable line of at most 500 characters, without words that may be a path, an address or a file of somebody's."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(map(_word, line.split()))[:LONGEST]
