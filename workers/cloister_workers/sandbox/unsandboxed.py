# SPDX-License-Identifier: Apache-2.0
"""Start a program without a sandbox, for sites whose signed policy allows it where none is available.

The caller decides and records `unsandboxed` in the log; this file only does it. The program keeps the agent's user,
network and files. What it still has in common with `launch`: only the descriptors and variables given, no new
privileges, the limits, a scratch directory of its own (not limited in size) that is deleted afterwards, and its end
with the agent's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence

from cloister_workers.sandbox.launch import SandboxedProcess, check_argv, private_copies, start_launcher
from cloister_workers.sandbox.layout import environment, limits, own_limits
from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.spec import SandboxSpec


def launch_unsandboxed(argv: Sequence[str], spec: SandboxSpec) -> SandboxedProcess:
    """Start `argv` with the rights of this process; same interface as `launch`, `sandboxed` is False.

    Raises SandboxSpecError, SandboxStartError.
    """
    check_argv(argv)
    scratch = tempfile.mkdtemp(prefix="cloister-scratch-")

    def remove_scratch() -> None:
        shutil.rmtree(scratch, ignore_errors=True)

    try:
        with private_copies(spec.pass_fds) as fds:
            plan = Plan(
                argv=list(argv),
                env=environment(scratch, spec.env),
                cwd=scratch,
                fds=fds,
                limits=limits(spec),
                own_limits=own_limits(spec),
            )
            launcher, lifeline = start_launcher("bare", plan)
    except BaseException:
        remove_scratch()
        raise
    return SandboxedProcess(
        launcher,
        lifeline,
        model_path=str(spec.model_dir) if spec.model_dir else None,
        auxiliary_path=str(spec.auxiliary_dir) if spec.auxiliary_dir else None,
        scratch_path=scratch,
        sandboxed=False,
        on_end=remove_scratch,
    )
