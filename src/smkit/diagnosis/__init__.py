"""The doctor: asks this machine, the network, the account and the database whether smkit will work here.

A face over the stages. `catalogue` lists the checks, `scheduling` runs them side by side, each for a few seconds at
most, `report` is what they found. A check is a function of `context.Context` that returns a `Finding`; no secret that
the context knows of gets into one.

The package is not called `doctor`: importing it would put a module in the place of the function `smkit.doctor`.
"""

from __future__ import annotations

from smkit.diagnosis.examination import doctor
from smkit.diagnosis.report import CheckResult, DoctorReport

__all__ = ["CheckResult", "DoctorReport", "doctor"]
