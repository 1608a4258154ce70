"""The page that shows near copies to the one who decides: pictures of people, so it is written where nobody else reads it.

Self-contained, without scripts and without anything from elsewhere, as the report page is. It names nobody: people have numbers.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from lmeraser.data.images import open_checked
from lmeraser.erase.near import offer
from lmeraser.report.page import engine, styled

SIDE = 112  # px, the longer side of a thumbnail


@dataclass(frozen=True)
class NearImage:
    """An image of others that looks like a leaving one.

    Attributes:
        picture, leaving: thumbnails (PNG), its own and the leaving one's; sha256: of its bytes; same: whether these are equal.
        person: a number; records: how many of those who stay have it; public: whether one of these is public.
        distance: root mean square over the features, in deviations; bits: of the hash that differ; by_features, by_hash: which
            of the two is nearer than usual.
    """

    picture: bytes
    leaving: bytes
    sha256: str
    same: bool
    person: int
    records: int
    public: bool
    distance: float
    bits: int
    by_features: bool
    by_hash: bool

    @property
    def why(self) -> str:
        """In words, why it is listed."""
        if self.same:
            return "the same bytes"
        return " and ".join(word for word, is_so in (("features", self.by_features), ("hash", self.by_hash)) if is_so)


@dataclass(frozen=True)
class NearFacts:
    """What the page says.

    Attributes:
        plan: names the leaving records; leaving: how many; compared: distinct images of those who stay; found: that look alike.
        share: of the sample that has a stranger nearer than usual; sampled: how many images told that.
        usual_distance, usual_bits: what is usual; images: nearest first, perhaps not all that were found.
    """

    plan: str
    leaving: int
    compared: int
    found: int
    share: float
    sampled: int
    usual_distance: float
    usual_bits: int
    images: Sequence[NearImage]


def thumbnail(data: bytes, max_pixels: int) -> bytes:
    """A small PNG of an image. Raises: ImageError."""
    image = open_checked(data, max_pixels).convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def render_near(facts: NearFacts) -> bytes:
    """The page in UTF-8."""
    numbered = list(enumerate(facts.images, start=1))
    said = [(f"image {number}: {image.why}, other person {image.person}", image.sha256) for number, image in numbered]
    context = {
        "facts": facts,
        "groups": [
            ("private", "Images of private records", [pair for pair in numbered if not pair[1].public]),
            ("public", "Images of public records", [pair for pair in numbered if pair[1].public]),
        ],
        "text": offer(facts.plan, said),
        "lines": 2 * len(said) + 2,
        **styled("style.css", "near.css"),
    }
    return engine().get_template("near.html").render(context).encode(errors="replace")
