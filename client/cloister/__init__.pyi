# SPDX-License-Identifier: Apache-2.0
from cloister.client import Client as Client

__version__: str
