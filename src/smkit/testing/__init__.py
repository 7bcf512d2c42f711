"""The sandbox: SageMaker's training API on this machine, for tests. It really trains.

`sandbox()` starts moto, a server that stands for AWS, and in front of it a server of smkit's own that answers the
operations on training jobs. Moto "completes" a training job without running it; here each job downloads its code and
channels from the sandbox's S3, runs the script in a fresh process by the container's contract, writes its log to the
sandbox's CloudWatch while it runs, and uploads the model.

From the outside in: `launch` (what `sandbox()` yields), `front` (HTTP), `service` (the operations), `constraints` and
`rules` (what a request may hold), `records` (the state of a job), `execution` (runs one job), `container` (its
folder and process), `toolkit` (the part of the image that calls the script), `cloudwatch` and `checkpoints` (what runs
beside it), `faults` (what a test may let go wrong), `moto_server` (the rest of AWS).
"""

from __future__ import annotations

from smkit.testing.faults import JobConditions
from smkit.testing.launch import Sandbox, sandbox

__all__ = ["JobConditions", "Sandbox", "sandbox"]
