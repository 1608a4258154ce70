"""One file per DVC stage: read files, call the core, write files. Never imports flows.

Variables that reach bits are read when numpy and torch are first imported, so they are settled here, before any stage's imports.
"""

from lmeraser.core import determinism

determinism.settle()
