# SPDX-License-Identifier: Apache-2.0
"""Cloister: adapt language models inside an organisation's own walls.

`from cloister import Client` is what a program needs; it is loaded only when it is asked for.
"""

import importlib

__version__ = "0.1.0"
__all__ = ["Client"]


def __getattr__(name: str) -> object:
    if name == "Client":
        # By name, so that whoever imports the package alone depends on nothing that opens an envelope.
        return importlib.import_module("cloister.client").Client
    raise AttributeError(f"module 'cloister' has no attribute {name!r}")
