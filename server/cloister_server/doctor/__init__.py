# SPDX-License-Identifier: Apache-2.0
"""`cloister-server doctor`: what is wrong with a site that is installed, and what to do about it."""
