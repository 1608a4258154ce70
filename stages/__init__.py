"""One file per DVC stage: read files, call the core, write files. Never imports flows.

The variables below are read when numpy and torch are first imported, so they are set here, before any stage's imports: a
second thread, or another code path of the maths library, changes bits.
"""

import os

os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    MKL_CBWR="AVX2,STRICT",
    CUBLAS_WORKSPACE_CONFIG=":4096:8",
)
