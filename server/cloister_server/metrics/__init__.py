# SPDX-License-Identifier: Apache-2.0
"""What Prometheus may read of the control plane: figures, never names of teams, datasets or people."""
