# SPDX-License-Identifier: Apache-2.0
"""The root custodian's tools: root and CA, roster, certificates, policy and log keys.

Everything here runs away from the control plane.  Whoever holds the custodian's directory decides who belongs to
the site: it is the root of trust.
"""
