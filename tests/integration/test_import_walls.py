# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

# Imports every module of a package, entry points and migrations aside, then prints what came along.
PROGRAM = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if "migrations" not in module.name:
        importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[2:])))
"""
MODELS = ("peft", "tokenizers", "torch", "transformers")
DATABASES = ("alembic", "psycopg", "sqlalchemy")


@pytest.mark.parametrize(
    ("package", "kept_out"),
    [
        ("cloister", (*MODELS, *DATABASES, "numpy")),
        ("cloister_server", MODELS),
        ("cloister_audit", MODELS),
        ("cloister_workers.agent", (*MODELS, *DATABASES)),
        ("cloister_workers.keyagent", (*MODELS, *DATABASES, "grpc", "numpy")),
    ],
)
def test_walls_hold_in_a_running_interpreter(package: str, kept_out: tuple[str, ...]) -> None:
    """A package loads nothing that its process must not hold, through its parents' __init__ included."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, package, *kept_out],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (0, "") == (done.returncode, done.stdout.strip()), done.stderr
