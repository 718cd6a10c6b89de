# SPDX-License-Identifier: Apache-2.0
"""The reference page of the configuration files: `python -m cloister_dev.configuration_page`."""

from __future__ import annotations

import sys

from cloister.configuration.page import table
from cloister_server.config import Config
from cloister_workers.config import Limits

_PAGE = """# Configuration

This page is made from the declarations in the code: `python -m cloister_dev.configuration_page`.

## Control plane: `server.toml`

`cloister-server serve --config FILE`. Relative paths start at the file's folder; `credential:NAME` is the file NAME in
the folder of systemd's credentials (`LoadCredential=`, `LoadCredentialEncrypted=`). An unknown section or key is
refused, and every problem is told with its line. Passwords and keys are read from files, never from the environment:
with `PGPASSWORD` set the service does not start.

{server}
`cloister-server check-config --config FILE` also opens what the file names: files and their modes, certificate and
key, log key, roster, store, database and its schema. It prints every problem and ends with 0 (none), 2 (the file is
wrong) or 3 (something that it names is).

## Worker host: `DIR/agent/agent.toml` (optional)

{worker}
`cloister-worker check-config --dir DIR` checks it, the certificate with its key, and the key's mode; it ends with 0
or 1.

## People

`CLOISTER_HOME` names the home directory (default `~/.cloister`); `--home` overrides it.
"""


def page() -> str:
    """The whole page."""
    return _PAGE.format(server=table(Config), worker=table(Limits))


if __name__ == "__main__":
    sys.stdout.write(page())
