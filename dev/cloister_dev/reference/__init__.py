# SPDX-License-Identifier: Apache-2.0
"""Reference pages made from the code that they describe: `python -m cloister_dev.reference PAGE`.

They need the extra `dev`, and the page of the contract a checkout of the repository.
"""
