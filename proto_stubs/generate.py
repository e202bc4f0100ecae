"""Compile ``proto_stubs/*.proto`` to ``*_pb2.py`` and ``*_pb2.pyi``; ``--check`` only compares."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
SHARED_POOL = "_descriptor_pool.Default()"
PRIVATE_POOL = "POOL"
POOL_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
PRIVATE_POOL_IMPORT = "from proto_stubs.pool import POOL\n"


def compile_into(target: Path) -> None:
    """Run protoc with the typing plug-in, then move the generated code to the private pool."""
    plugin = shutil.which("protoc-gen-mypy", path=Path(sys.executable).parent)
    if plugin is None:
        raise FileNotFoundError("protoc-gen-mypy: install requirements-dev.txt")
    sources = sorted(path.name for path in FOLDER.glob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={FOLDER}",
            f"--plugin=protoc-gen-mypy={plugin}",
            f"--python_out={target}",
            f"--mypy_out=quiet:{target}",
            *sources,
        ],
        check=True,
    )
    for path in target.glob("*_pb2.py"):
        path.write_text(with_private_pool(path.read_text()))


def with_private_pool(code: str) -> str:
    """What protoc puts in the process-wide pool goes to our own."""
    if code.count(POOL_IMPORT) != 1 or code.count(SHARED_POOL) != 1:
        raise ValueError("protoc's output has changed; adapt with_private_pool")
    return code.replace(POOL_IMPORT, PRIVATE_POOL_IMPORT).replace(SHARED_POOL, PRIVATE_POOL)


def stale_files(fresh: Path) -> list[str]:
    """Names of generated files that are missing, differ from ``fresh``, or have no source."""
    names = {path.name for folder in (fresh, FOLDER) for path in folder.glob("*_pb2.py*")}
    return sorted(name for name in names if _content(fresh / name) != _content(FOLDER / name))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        compile_into(fresh)
        stale = stale_files(fresh)
        if arguments == ["--check"]:
            if stale:
                print(f"stale, run `make stubs`: {', '.join(stale)}", file=sys.stderr)
            return 1 if stale else 0
        for name in stale:
            (FOLDER / name).unlink(missing_ok=True)
            if (fresh / name).exists():
                shutil.copy(fresh / name, FOLDER / name)
        print(f"updated: {', '.join(stale)}" if stale else "up to date")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
