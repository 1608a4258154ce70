"""scikit-learn's 1,797 handwritten digits (8 x 8, 16 greys): the embedded default, no download.

The data set names no writers. `data/digits.csv` gives stable subjects of 1 to 9 neighbouring images (its order follows
the writers of the original test set: Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten Digits), and
`python -m lmeraser.sources.digits` prints that table again.
"""

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmeraser.core.digest import number_from
from lmeraser.core.errors import ImageError
from lmeraser.data.images import stored_png
from lmeraser.data.records import PRIVATE, PUBLIC, TEST, TRAIN
from lmeraser.sources.base import COLUMNS, Source
from lmeraser.sources.manifest import ManifestSource

if TYPE_CHECKING:
    import pandas as pd  # half a second, which who only opens a source need not wait for

PREFIX = "digits:"


class DigitsSource(Source):
    """A table whose paths are `digits:0000` to `digits:1796`."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._table = ManifestSource.open(path)

    @cached_property
    def _images(self) -> Any:
        from sklearn.datasets import load_digits

        return load_digits().images

    def table(self) -> "pd.DataFrame":
        return self._table.table()

    def image(self, path: str) -> bytes:
        number = path.removeprefix(PREFIX)
        if not path.startswith(PREFIX) or not number.isdecimal() or int(number) >= len(self._images):
            raise ImageError(f"the path is not one of the digits; expected {PREFIX}0000 to {PREFIX}{len(self._images) - 1}")
        return stored_png(np.rint(self._images[int(number)] * (255 / 16)).astype(np.uint8))


def assign_subjects(labels: Sequence[int]) -> "pd.DataFrame":
    """Stable subjects for a list of images: runs of 1 to 9 neighbours, 40 % of the people public.

    One person in five is held out for testing; of the others every fourth has one record in test as well.
    """
    import pandas as pd

    rows: list[dict[str, str]] = []
    person = 0
    while len(rows) < len(labels):
        size = min(1 + number_from("digits", "size", person) % 9, len(labels) - len(rows))
        public = number_from("digits", "visibility", person) % 10 < 4
        held_out = number_from("digits", "split", person) % 5 == 0
        mixed = number_from("digits", "mixed", person) % 4 == 0 and size > 1
        for position in range(size):
            index = len(rows)
            test = held_out or (mixed and position == size - 1)
            fields = (
                f"{PREFIX}{index:04d}",
                str(labels[index]),
                f"writer-{person:03d}",
                PUBLIC if public else PRIVATE,
                TEST if test else TRAIN,
            )
            rows.append(dict(zip(COLUMNS, fields, strict=True)))
        person += 1
    return pd.DataFrame(rows, columns=list(COLUMNS))


def main() -> None:
    from sklearn.datasets import load_digits

    assign_subjects(load_digits().target.tolist()).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
