"""The way to the source that params.yaml names, and what must hold of it."""

from pathlib import Path

from lmeraser.core.errors import ParamsError
from lmeraser.core.params import PublishedSource as PublishedParams
from lmeraser.core.params import Source as SourceParams
from lmeraser.sources.base import ErasableSource, Source
from lmeraser.sources.manifest import ManifestSource
from lmeraser.sources.place import check_place, check_tree, check_untracked


def open_source(params: SourceParams | PublishedParams, root: Path) -> Source:
    """The source that params.yaml names; relative paths start at the project's folder.

    Raises: BadInputError if it is absent, or lies where a build would delete or hash it.
    """
    path = root / params.path
    check_place(path, root)
    if params.kind == "torchvision":
        if params.erase:
            raise ParamsError("params.yaml: source.erase is true, but published data sets cannot be erased from; set it to false")
        from lmeraser.sources.published import PublishedSource  # here, for both are programs too (`python -m`)

        return PublishedSource(params, path)
    if params.kind == "digits":
        if params.erase:
            raise ParamsError(
                "params.yaml: source.erase is true, but the digits come with scikit-learn and cannot be deleted there; "
                "set it to false"
            )
        from lmeraser.sources.digits import DigitsSource

        return DigitsSource(path)
    return ManifestSource.open(path, root)


def open_erasable_source(params: SourceParams | PublishedParams, root: Path) -> ErasableSource:
    """The source, to delete people from. Raises: BadInputError as `open_source`, and if nobody can be deleted from it."""
    return _erasable(open_source(params, root), params.kind)


def _erasable(source: Source, kind: str) -> ErasableSource:
    if not isinstance(source, ErasableSource):
        raise ParamsError(f"params.yaml: a source of kind {kind} cannot be erased from; set source.erase to false")
    return source


def check_source(params: SourceParams | PublishedParams, root: Path) -> Source:
    """Open the source and check everything that can be known of it before its images are read.

    Raises: BadInputError in one line: absent, in a wrong place, tracked by DVC, not to be hashed, or not to be erased from
        although `erase` is true.
    """
    source = open_source(params, root)
    path = root / params.path
    if path.is_dir():
        check_tree(path)
    check_untracked(params, root)
    if params.erase:
        _erasable(source, params.kind).check_erasable()
    return source
