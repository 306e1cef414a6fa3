"""The compiled functions as a library of this machine's own code, which is loaded in a millisecond:
Numba itself, with the compiler that it brings, takes half a second and 110 MB of every process.

    python -m topbill.policies.linear.library

makes it in `built`, with Numba and a C compiler: `make` does when it sets up the
environment, and so do image and wheel. Its name says of which sources and of which Python it is, so
that none is loaded that is not of the code as it stands. Where there is none, and where TOPBILL_JIT
is set, Numba compiles when a process first uses a function (`compiled`).
"""

from __future__ import annotations

import inspect
import os
import platform
import shutil
import sys
import warnings
from hashlib import blake2b
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

JIT = "TOPBILL_JIT"
MODULES = ("addresses", "hashing", "kernels", "rows", "ruled", "sampling", "slates")
"""Those with compiled functions."""
_OTHERS = ("chances", "compiled")
"""What the functions take from elsewhere."""
_NAME = "topbill_kernels"
_HERE = Path(__file__).parent
_IS_X86 = platform.machine() in ("x86_64", "AMD64")


def path() -> Path:
    """Where the library of the sources as they stand is, or would be."""
    digest = blake2b(digest_size=6)
    for name in sorted(MODULES + _OTHERS):
        digest.update((_HERE / f"{name}.py").read_bytes())
    return _HERE / "built" / f"{_NAME}-{digest.hexdigest()}{EXTENSION_SUFFIXES[0]}"


def load() -> Any:
    """The library as a module with the functions by name; None where there is none for this
    machine.
    """
    if os.environ.get(JIT) or not _has_its_instructions():
        return None
    try:
        where = path()
        spec = spec_from_file_location(_NAME, where, loader=ExtensionFileLoader(_NAME, str(where)))
        if spec is None or spec.loader is None or not where.exists():
            return None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    except (OSError, ImportError):  # sources or library cannot be read, or it is damaged
        return None
    return module


def _has_its_instructions() -> bool:
    """Whether the processor has the instructions of x86-64-v3 (AVX2), where it is an x86."""
    return not _IS_X86 or bool(np._core._multiarray_umath.__cpu_features__.get("X86_V3"))  # type: ignore[attr-defined]


def build() -> Path:
    """Make the library, unless it is there; where it is."""
    where = path()
    if where.exists():
        return where
    with warnings.catch_warnings():
        # Numba means to make these libraries in another way some day. Until then this is the way.
        warnings.simplefilter("ignore")
        pycc: Any = import_module("numba.pycc")
    made = pycc.CC(_NAME)
    made.target_cpu = "x86-64-v3" if _IS_X86 else ""
    for module in MODULES:
        for name, function in vars(import_module(f"topbill.policies.linear.{module}")).items():
            if getattr(function, "signatures", ()) and function.__module__.endswith(module):
                made.export(name, function.nopython_signatures[0])(_calling(function))
    with TemporaryDirectory() as folder:
        made.output_dir = folder
        made.compile()
        where.parent.mkdir(exist_ok=True)
        whole = where.with_name(f"{where.name}.{os.getpid()}.tmp")
        shutil.copy(Path(folder, made.output_file), whole)
        whole.replace(where)
    for other in where.parent.glob(f"{_NAME}-*{EXTENSION_SUFFIXES[0]}"):
        if other != where:  # of sources as they were
            other.unlink(missing_ok=True)
    return where


def _calling(function: Any) -> Any:
    """A function that only calls this one, which so keeps how it is compiled (`error_model`)."""
    names = ", ".join(inspect.signature(function.py_func).parameters)
    scope = {"compiled": function}
    exec(f"def {function.__name__}({names}): return compiled({names})", scope)  # noqa: S102
    return scope[function.__name__]


def main() -> None:
    """Make the library, or say why there is none."""
    # What is compiled anew is Numba's own functions, and not those of a library that is there.
    os.environ[JIT] = "1"
    try:
        print(build())
    except Exception as error:
        # Of a C compiler that is missing, each system says something else.
        sys.exit(
            f"no library of compiled functions: {type(error).__name__}: {error}; it takes Numba "
            "and a C compiler (apt install gcc). Without it a process starts half a second later "
            "and takes 110 MB more"
        )


if __name__ == "__main__":
    main()
