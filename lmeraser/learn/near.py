"""Near copies: images of others that look like those of who leaves, by two measures against what is usual between strangers.

- **features**: the squared distance of the frozen network's features as whole numbers. It is exact, so that it depends on no
  order, block or thread.
- **hash**: in how many of 64 bits the perceptual hashes differ (`phash` of the library imagehash; Zauner 2010, "Implementation
  and Benchmarking of Perceptual Image Hash Functions").

A leaving image is looked at whole and cropped to its middle, each as it is and mirrored (`VIEWS`); the nearest view counts.
*Usual* is how near the nearest image of another person is for a share of a sample of images, or a quarter of the median if that
is more: where many images were copied, the nearest are copies, and would say that copies are usual. What is nearer is listed, for
people to judge. Nothing is stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lmeraser.clusters.quantisation import STEPS, squared_distances

SAMPLE = 500  # images by which is told what is usual between strangers; all of their views pass the network
MIDDLE = 0.85  # share of each side that is left of a cropped view
ASKED, OTHERS = 1024, 4096  # rows that are compared at once: a block of distances has 32 MB
BITS = 64  # of a perceptual hash
LEAST = 0.25  # of the median of the nearest strangers' distances: what is nearer than this is never usual

Distances = NDArray[np.float64]


class Looks(NamedTuple):
    """How n images look. Attributes: features: (n, d) whole numbers that float32 holds exactly; hashes: (n,) uint64."""

    features: NDArray[np.float32]
    hashes: NDArray[np.uint64]

    def take(self, rows: NDArray[np.int64] | slice) -> "Looks":
        return Looks(self.features[rows], self.hashes[rows])


Views = Sequence[Looks]  # of the same images


def _whole(image: Image.Image) -> Image.Image:
    return image


def _middle(image: Image.Image) -> Image.Image:
    width, height = max(1, round(image.width * MIDDLE)), max(1, round(image.height * MIDDLE))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _mirrored_middle(image: Image.Image) -> Image.Image:
    return ImageOps.mirror(_middle(image))


VIEWS = (_whole, ImageOps.mirror, _middle, _mirrored_middle)  # the first shows the image as it is
View = Callable[[Image.Image], Image.Image]


class Usual(NamedTuple):
    """What is nearer than this is listed. Attributes: features: a squared distance; bits: of the hash; sampled: images."""

    features: float
    bits: int
    sampled: int


@dataclass(frozen=True)
class Match:
    """An image of others that looks like a leaving one. Attributes: other, leaving: rows; distance: squared; bits: of 64."""

    other: int
    leaving: int
    distance: float
    bits: int


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that re-encoding and resizing leave nearly as they are. Args: image: of mode L or RGB."""
    bits = np.packbits(imagehash.phash(image).hash.ravel())
    return int.from_bytes(bits.tobytes(), "big")


def in_units(distance: float, width: int) -> float:
    """A squared distance as the root mean square over the features, in deviations of the public images. Args: width: d."""
    return float(np.sqrt(distance / width) / STEPS)


def _gaps(views: Views, others: Looks) -> tuple[Distances, NDArray[np.uint8]]:
    """(n, m) squared distances and differing bits of n images from m others, each by the nearest view."""
    wide = others.features.astype(np.float64)
    distances = [squared_distances(view.features.astype(np.float64), wide) for view in views]
    bits = [np.bitwise_count(view.hashes[:, None] ^ others.hashes[None, :]) for view in views]
    return np.minimum.reduce(distances), np.minimum.reduce(bits)


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def usual(views: Views, whose: NDArray[np.int64], image: NDArray[np.int64], others: "Strangers", share: float) -> Usual:
    """How near the nearest stranger's image is for that share of a sample that has the nearest ones.

    Strangers are two people, and an image of the same bytes is no stranger: it would say that copies are usual.

    Args: views: (s, ...) of the sample; whose, image: (s,) the person and the distinct image of each; share: in [0, 1).
    Returns: limits below which at most that share of the sample has a stranger, or a quarter of the median.
    """
    count = len(whose)
    nearest, bits = np.full(count, np.inf), np.full(count, BITS + 1)
    for mine in _blocks(count, ASKED):
        here = [view.take(mine) for view in views]
        for theirs in _blocks(len(others.whose), OTHERS):
            distances, differing = _gaps(here, others.looks.take(theirs))
            known = (whose[mine, None] == others.whose[None, theirs]) | (image[mine, None] == others.image[None, theirs])
            nearest[mine] = np.minimum(nearest[mine], np.where(known, np.inf, distances).min(1))
            bits[mine] = np.minimum(bits[mine], np.where(known, BITS + 1, differing).min(1))
    met = np.isfinite(nearest)
    sampled = int(met.sum())
    if not sampled:
        return Usual(0.0, 0, 0)
    place, middle = int(share * sampled), sampled // 2
    nearest, bits = np.sort(nearest[met]), np.sort(bits[met])
    distance = max(float(nearest[place]), float(nearest[middle]) * LEAST**2)  # squared
    return Usual(distance, max(int(bits[place]), int(bits[middle] * LEAST)), sampled)


class Strangers(NamedTuple):
    """Images that a sample is compared with. Attributes: looks: of m; whose, image: (m,) the person and the distinct image."""

    looks: Looks
    whose: NDArray[np.int64]
    image: NDArray[np.int64]


def near_ones(views: Views, others: Looks, limits: Usual) -> list[Match]:
    """The others that look like one of the leaving images, nearest first.

    Args: views: (n, ...) of the leaving images.
    Returns: for each of the others that is nearer than usual by features or by hash, or looks the same to the network, the
    leaving image that it is nearest to: by features, or where these are usual by the hash.
    """
    matches = []
    for theirs in _blocks(len(others.hashes), OTHERS):
        block = others.take(theirs)
        width = theirs.stop - theirs.start
        best, by_features = np.full(width, np.inf), np.zeros(width, dtype=np.int64)
        least, by_hash = np.full(width, BITS + 1), np.zeros(width, dtype=np.int64)
        bits_there = np.full(width, BITS + 1)  # of the image that is nearest by features
        for mine in _blocks(len(views[0].hashes), ASKED):
            distances, differing = _gaps([view.take(mine) for view in views], block)
            row, column = distances.argmin(0), np.arange(width)
            nearer = distances[row, column] < best
            best[nearer], by_features[nearer] = distances[row, column][nearer], (row + mine.start)[nearer]
            bits_there[nearer] = differing[row, column][nearer]
            row = differing.argmin(0)
            closer = differing[row, column] < least
            least[closer], by_hash[closer] = differing[row, column][closer], (row + mine.start)[closer]
        alike = (best == 0) | (best < limits.features)
        for place in np.flatnonzero(alike | (least < limits.bits)).tolist():
            seen, bits = (by_features, bits_there) if alike[place] else (by_hash, least)
            leaving = int(seen[place])
            distance = float(best[place]) if alike[place] else _distance(views, leaving, block, place)
            matches.append(Match(theirs.start + place, leaving, distance, int(bits[place])))
    return sorted(matches, key=lambda match: (_rank(match, limits), match.other))


def _distance(views: Views, leaving: int, block: Looks, place: int) -> float:
    one, other = slice(leaving, leaving + 1), slice(place, place + 1)
    return float(_gaps([view.take(one) for view in views], block.take(other))[0][0, 0])


def _rank(match: Match, limits: Usual) -> float:
    """How near by the better of the two measures, as a share of what is usual."""
    return min(match.distance / max(limits.features, 1.0), match.bits / max(limits.bits, 1))
