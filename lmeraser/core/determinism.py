"""One call that settles every variable that reaches bits, before numpy or torch is imported: `settle`.

Stages, the command line, benches and tests make it first, so that the same records give the same bits in each of them,
whatever the shell, a service manager or a container sets:

- what must have one value gets it (`SETTINGS`): one thread, one code path of the maths libraries;
- `PINS` keep theirs: by them an operator chooses a smaller instruction set on purpose. Their effect is part of the
  environment (`core/environment.py`), so that bits of two choices never meet in one model;
- every other variable of these libraries goes (`FOREIGN`), but for those that only say where files lie (`HARMLESS`).

The libraries read their variables when they are first imported. Where one was imported under other settings, `require` refuses.
"""

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

from lmeraser.core.errors import StepFailedError

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MKL_CBWR": "AVX2,STRICT",  # without it the head's weight gradient is another one by memory alignment
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
)
PINS = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "GLIBC_TUNABLES",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",  # OpenBLAS 0.3.34 (numpy 2.5) with pinned kernels crashes on some processors without it
)
FOREIGN = (  # how the names begin of variables that choose threads, kernels, algorithms or types
    *("OMP_", "GOMP_", "KMP_", "LIBGOMP_"),
    *("MKL", "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_", "ARMPL_", "ACL_", "NUMEXPR_"),
    *("ONEDNN_", "DNNL_", "ATEN_", "C10_", "TORCH", "PYTORCH", "TIMM_", "XFORMERS_"),
    *("CUBLAS", "CUDNN", "CUDA_FORCE_", "CUDA_DISABLE_", "NVIDIA_TF32_OVERRIDE", "DISABLE_ADDMM_CUDA_LT"),
    *("NPY_", "NUMPY_", "SCIPY_", "SKLEARN_", "PANDAS_", "JSIMD_", "MATPLOTLIBRC"),
)
HARMLESS = (  # where files lie, what is logged, and how memory is handed out
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),  # scikit-learn sets them itself
    *("TORCH_HOME", "TORCH_EXTENSIONS_DIR", "TORCH_LOGS", "TORCH_SHOW_CPP_STACKTRACES", "TORCH_CPP_LOG_LEVEL"),
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "MKLROOT", "SKLEARN_DATA", "SCIPY_DATA", "CUDNN_PATH", "CUDNN_HOME"),
)
LIBRARIES = ("numpy", "scipy", "torch", "sklearn")  # each reads some of them at its first import

_late: list[str] = []  # what the first call had to change although a library was imported already
_made: list[bool] = []  # whether the first call is over


def settled(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process as they must be: a function of those given."""
    kept = {name: value for name, value in variables.items() if name in PINS or name in HARMLESS or not name.startswith(FOREIGN)}
    return {**kept, **SETTINGS}


def settle() -> None:
    """Settle this process's variables, before numpy or torch is imported. It costs nothing and may be repeated.

    Once a library is imported, nothing is changed any more: it has read what it reads, and libraries set variables themselves.
    """
    imported = any(library in sys.modules for library in LIBRARIES)
    if imported and _made:
        return
    before = dict(os.environ)
    after = settled(before)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    for name in before.keys() - after.keys():
        del os.environ[name]
    os.environ.update({name: after[name] for name in changed if name in after})
    _made.append(True)
    _late.extend(changed if imported else [])


def require() -> None:
    """Settle, and raise StepFailedError where a library was imported before under other settings."""
    settle()
    if _late:
        raise StepFailedError(
            f"numpy or torch was imported before its settings were made ({', '.join(_late[:5])}), so bits could differ; start "
            "lmeraser in a process of its own, or call lmeraser.core.determinism.settle() before you import them"
        )
