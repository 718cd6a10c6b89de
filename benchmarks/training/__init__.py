# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/train.py` compares: rows and a model, and the programs that train on them."""
