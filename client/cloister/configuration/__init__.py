# SPDX-License-Identifier: Apache-2.0
"""Configuration files of the services: one declaration of a key gives its type, range, default, meaning and page."""
