# SPDX-License-Identifier: Apache-2.0
"""The sealed container: keys, payload, container file, and bundles of files (format: protos/ENVELOPE.md)."""
