"""The one rule for the text that names a person or a class, in a manifest as on the command line.

Two spellings that look the same would be two people, and whoever is two is erased by half. So accents are composed, blanks at the
ends go, and a character that nobody sees is refused. It is not taken out: who was erased under the longer spelling is on the list
under that, and would come back under the shorter one.
"""

import unicodedata

MAX_LENGTH = 1024  # characters of a label or subject; a longer one is a broken table

# Nobody sees these, though `str.isprintable` is true of them (Unicode 16, Default_Ignorable_Code_Point): the combining grapheme
# joiner, fillers of Hangul, inherent vowels of Khmer, variation selectors; and the empty Braille pattern.
_RANGES: tuple[tuple[int, int], ...] = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800)),
    *((0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF)),
)
UNSEEN_LETTERS = frozenset(chr(code) for first, last in _RANGES for code in range(first, last + 1))


def normalise_name(text: str) -> str:
    """A label or subject trimmed, in Unicode normalisation form C (UAX 15)."""
    return text if text.isascii() and text == text.strip() else unicodedata.normalize("NFC", text.strip())


def unseen(name: str) -> str | None:
    """The first character that nobody sees, as `U+200B`: control, format, private, unassigned, any blank but the plain one."""
    if name.isascii() and name.isprintable():
        return None
    return next((f"U+{ord(letter):04X}" for letter in name if not letter.isprintable() or letter in UNSEEN_LETTERS), None)
