"""Where records come from: a table of records, and the bytes of each image."""

from lmeraser.sources.place import check_source, check_untracked
from lmeraser.sources.table import COLUMNS, Source, open_source

__all__ = ["COLUMNS", "Source", "check_source", "check_untracked", "open_source"]
