"""Builds the compiled half of the core, ``prosody/_core/*_c.pyx``; the rest is in pyproject.toml.

``PROSODY_REQUIRE_EXTENSIONS=1``  a build that fails is an error, not a fall-back (CI sets it)
``PROSODY_PURE_PYTHON=1``         compile nothing
"""

import os
import warnings
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CORE = Path("prosody", "_core")


def switched_on(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in {"1", "true"}


REQUIRED = switched_on("PROSODY_REQUIRE_EXTENSIONS")
PURE = switched_on("PROSODY_PURE_PYTHON")
if REQUIRED and PURE:
    raise SystemExit(
        "prosody: PROSODY_REQUIRE_EXTENSIONS=1 and PROSODY_PURE_PYTHON=1 contradict each other "
        "in a build; unset one"
    )


class BuildOrFallBack(build_ext):
    """Compiles all extensions or none: the halves of the core are never mixed."""

    def run(self) -> None:
        # Asked for now: the base class switches inplace off while it compiles.
        into_work_tree = bool(self.inplace or getattr(self, "editable_mode", False))
        try:
            super().run()
        # No compiler, no headers, no Cython: each tool has exceptions of its own. All of them end
        # the same way, with the pure half, which needs nothing.
        except Exception as error:
            if REQUIRED:
                raise
            self.drop_built(into_work_tree)
            # Not printed: pip hides what a build prints, and newer ones show what it warns about.
            warnings.warn(warning(error), stacklevel=1)

    def build_extension(self, ext: Extension) -> None:
        from Cython.Build import cythonize  # a missing Cython is one more failed build

        # -ffp-contract=off: no fused multiply-add, so that both halves compute the same bits.
        # MSVC does not contract under its default, /fp:precise. -g0: the debug information that
        # Python's own flags ask for is four fifths of the module.
        if self.compiler.compiler_type != "msvc":
            ext.extra_compile_args = ["-ffp-contract=off", "-g0"]
        (translated,) = cythonize(
            [Extension(ext.name, list(ext.sources), depends=list(ext.depends))],
            build_dir=self.build_temp,  # keeps the .c files out of the work tree
            compiler_directives={"language_level": "3"},
            force=self.force,
        )
        ext.sources = translated.sources
        super().build_extension(ext)

    def drop_built(self, into_work_tree: bool) -> None:
        """Remove what was compiled before the failure, and stale modules of an in-place build."""
        folders = [Path(self.build_lib, CORE)]
        if into_work_tree:
            folders.append(ROOT / CORE)
        for extension in self.extensions:
            file_name = Path(self.get_ext_filename(extension.name)).name
            for folder in folders:
                (folder / file_name).unlink(missing_ok=True)
        self.extensions = []


def warning(error: Exception) -> str:
    reason = str(error).strip() or type(error).__name__
    line = "*" * 78
    return (
        f"\n{line}\n"
        "WARNING: prosody is installed WITHOUT its compiled core; the pure-Python half runs\n"
        "instead: the same answers, more CPU for each message.\n"
        f"Reason: {type(error).__name__}: {reason}\n"
        "Fix: install a C compiler and the Python headers (Debian: gcc python3-dev), then reinstall\n"
        "with --no-cache-dir --force-reinstall. PROSODY_REQUIRE_EXTENSIONS=1 turns this warning into\n"
        "an error; prosody._core.IMPLEMENTATION tells at run time which half runs.\n"
        f"{line}\n"
    )


def extensions() -> list[Extension]:
    if PURE:
        return []
    headers = [(CORE / header.name).as_posix() for header in sorted((ROOT / CORE).glob("*.pxd"))]
    return [
        Extension(
            f"prosody._core.{source.stem}",
            [(CORE / source.name).as_posix()],
            depends=headers,
        )
        for source in sorted((ROOT / CORE).glob("*_c.pyx"))
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOrFallBack})
