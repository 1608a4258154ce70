"""Where records come from: a table of records, and the bytes of each image."""

from lmeraser.sources.base import COLUMNS, ErasableSource, Source
from lmeraser.sources.opening import check_source, open_erasable_source, open_source
from lmeraser.sources.place import check_untracked

__all__ = ["COLUMNS", "ErasableSource", "Source", "check_source", "check_untracked", "open_erasable_source", "open_source"]
