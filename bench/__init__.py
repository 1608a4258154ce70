"""Comparisons with peers and scaling. Every printed number comes from a run; results lie in bench/results/.

The variables are read when numpy and torch are first imported: the benches compute with the bits of the stages.
"""

import os

os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    MKL_CBWR="AVX2,STRICT",
    CUBLAS_WORKSPACE_CONFIG=":4096:8",
)
