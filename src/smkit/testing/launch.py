"""Starts and ends a sandbox."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from smkit._config_rules import REGION
from smkit.aws import partition_of
from smkit.errors import ConfigError, WaitTimeout
from smkit.testing.faults import FaultControls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import boto3

    from smkit.config import Settings
    from smkit.testing.records import TrainingJob

_ROLE = "smkit-sandbox"
_BUCKET = "smkit-sandbox"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


class Sandbox(FaultControls):
    """A sandbox; `sandbox()` makes, starts and ends it.

    Args:
        region: The region.
        account: The account, 12 digits.
        port: The port on 127.0.0.1; 0: a free one.
        stop_grace: Seconds that a script runs on after a stop before it is killed; 120 on AWS.

    Attributes:
        endpoint_url: Where every service of the sandbox answers.
        environment: The variables by which AWS clients find the sandbox, and nothing else.
        bucket: An empty bucket.
        role: ARN of a role that SageMaker may assume.
    """

    def __init__(self, *, region: str, account: str, port: int, stop_grace: float) -> None:
        super().__init__()
        if not re.fullmatch(REGION, region):
            raise ConfigError(f"region {region!r} is not a region such as 'cn-northwest-1'")
        if not re.fullmatch(r"\d{12}", account):
            raise ConfigError(f"account {account!r} is not an account: 12 digits")
        if not 0 <= port <= 65535:
            raise ConfigError(f"port {port!r} is not a port: 0 (a free one) to 65535")
        if not 0 <= stop_grace < math.inf:
            raise ConfigError(f"stop_grace {stop_grace!r} is not allowed: a number of seconds from 0 on")
        self.region = region
        self.account = account
        self.partition = partition_of(region)
        self.bucket = _BUCKET
        self.role = f"arn:{self.partition}:iam::{account}:role/{_ROLE}"
        self._allowed_images: list[Callable[[str], bool]] = []
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        # Any: the types of boto3-stubs, where installed, accept literal service names only.
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._port = port
        self._stop_grace = stop_grace

    def start(self) -> None:
        """Start the servers; make the bucket and the role.

        Raises:
            MissingExtraError: moto is not installed.
            ConfigError: The port cannot be used.
        """
        from smkit.testing.container import Platform
        from smkit.testing.execution import Execution
        from smkit.testing.front import Front
        from smkit.testing.moto_server import MotoServer
        from smkit.testing.rules import CreationRules
        from smkit.testing.service import TrainingService

        with contextlib.ExitStack() as stack:
            moto = MotoServer(self.account, self.region)
            moto.start()
            stack.callback(moto.close)
            self._folder = Path(tempfile.mkdtemp(prefix="smkit-sandbox-"))
            stack.callback(_delete, self._folder)
            moto.client("s3").create_bucket(
                Bucket=self.bucket,
                **(
                    {}
                    if self.region == "us-east-1"
                    else {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
                ),
            )
            moto.client("s3").put_public_access_block(
                Bucket=self.bucket,
                PublicAccessBlockConfiguration={
                    "BlockPublicAcls": True,
                    "IgnorePublicAcls": True,
                    "BlockPublicPolicy": True,
                    "RestrictPublicBuckets": True,
                },
            )
            moto.client("iam").create_role(RoleName=_ROLE, AssumeRolePolicyDocument=json.dumps(_TRUST))

            def launch(job: Any) -> None:
                thread = Execution(job, platform)
                self._threads.append(thread)
                thread.start()

            rules = CreationRules(moto, self.region, self.account, self._is_allowed_image)
            arn_prefix = f"arn:{self.partition}:sagemaker:{self.region}:{self.account}:training-job/"
            self._service = TrainingService(arn_prefix, rules, self._faults, launch)
            try:
                self._front = Front(self._port, moto.port, self._service, self._faults)
            except OSError as error:
                raise ConfigError(
                    f"port {self._port} cannot be used: {error.strerror}; take another, or 0 for a free one"
                ) from error
            self.endpoint_url = f"http://127.0.0.1:{self._front.server_address[1]}"
            self.environment = MappingProxyType(self._environment())
            platform = Platform(
                moto.client, self._folder, self.region, self.environment, self._stop_grace, self._closing
            )
            stack.callback(self._end_jobs)
            self._front.start()
            # Closed first of all: nobody starts a job while the jobs are being ended.
            stack.callback(self._front.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Kill every job, end the servers and delete what they held."""
        self._stack.close()

    def client(self, service: str) -> Any:
        """Return the boto3 client of this sandbox for a service, whatever `os.environ` says; made once."""
        with self._lock:
            if service not in self._clients:
                self._session = self._session or self.session()
                self._clients[service] = self._session.client(service, endpoint_url=self.endpoint_url)
            return self._clients[service]

    def session(self) -> boto3.Session:
        """Return a boto3 session with the sandbox's credentials and region."""
        from smkit.testing.moto_server import isolated_session

        return isolated_session(self.region)

    def settings(self, **overrides: Any) -> Settings:
        """Return settings for this sandbox.

        Args:
            **overrides: Any field of `smkit.Settings`; the backend is `sagemaker` unless it is given.

        Raises:
            ConfigError: A field is unknown or malformed.
        """
        from smkit.config import Settings

        values: dict[str, Any] = {
            "region": self.region,
            "profile": None,
            "role": self.role,
            "bucket": self.bucket,
            "backend": "sagemaker",
        }
        if not {"root", "bucket", "project"} & set(overrides):
            values["root"] = f"s3://{self.bucket}/smkit"
        return Settings(**(values | overrides))

    def image(self, framework_version: str = "1.2-1") -> str:
        """Return a TrainingImage of this region."""
        from smkit.testing.rules import image_host_suffix

        account = {"cn-north-1": "450853457545", "cn-northwest-1": "451049120500"}.get(self.region, self.account)
        host = f"{account}.dkr.ecr.{self.region}.{image_host_suffix(self.region)}"
        return f"{host}/sagemaker-scikit-learn:{framework_version}-cpu-py3"

    def allow_image(self, is_allowed: Callable[[str], bool]) -> None:
        """Accept other images than AWS's scikit-learn; their jobs run in this Python all the same.

        Args:
            is_allowed: Whether a TrainingImage may be used.
        """
        self._allowed_images.append(is_allowed)

    def requests(self, operation: str) -> tuple[dict[str, Any], ...]:
        """Return the parsed bodies of an operation's requests, refused ones among them, the first received first."""
        return self._front.log.of(operation)

    def wait(self, name: str, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for the end of a job and return what DescribeTrainingJob says of it, times as seconds since 1970.

        Raises:
            LookupError: There is no job of this name.
            WaitTimeout: It goes on.
        """
        job = self._job(name)
        if not job.over.wait(timeout):
            raise WaitTimeout(f"training job {name!r} is {job.status} after {timeout:g} s")
        return job.describe()

    def interrupt(self, name: str) -> None:
        """Take the instance of a running spot job away: now, or as soon as the job trains.

        Raises:
            LookupError: There is no job of this name.
            ConfigError: It is no spot job.
        """
        job = self._job(name)
        if not job.request.get("EnableManagedSpotTraining"):
            raise ConfigError(f"training job {name!r} is no spot job: create it with EnableManagedSpotTraining")
        job.interrupt_requested.set()

    def _job(self, name: str) -> TrainingJob:
        from smkit.testing.answers import ErrorAnswer

        try:
            return self._service.job(name)
        except ErrorAnswer:
            raise LookupError(f"the sandbox has no training job {name!r}") from None

    def _is_allowed_image(self, image: str) -> bool:
        return any(is_allowed(image) for is_allowed in self._allowed_images)

    def _environment(self) -> dict[str, str]:
        from smkit.testing.moto_server import ACCESS_KEY, SECRET_KEY

        nowhere = self._folder / "no-such-file"
        bypass = ",".join(dict.fromkeys([*filter(None, os.environ.get("NO_PROXY", "").split(",")), "127.0.0.1"]))
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(nowhere),
            "AWS_SHARED_CREDENTIALS_FILE": str(nowhere),
            "NO_PROXY": bypass,
            "no_proxy": bypass,
        }

    def _end_jobs(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def sandbox(
    *,
    region: str = "cn-northwest-1",
    account: str = "123456789012",
    port: int = 0,
    stop_grace: float = 1.0,
    set_environment: bool = True,
) -> Iterator[Sandbox]:
    """Run SageMaker's training API on this machine; jobs really train.

    Args:
        region: The region that it plays.
        account: The account that it plays, 12 digits.
        port: The port on 127.0.0.1; 0: a free one.
        stop_grace: Seconds that a script runs on after a stop before it is killed; 120 on AWS.
        set_environment: Let every AWS client of this process find the sandbox: the `AWS_*` variables are replaced by
            the sandbox's until the end. `os.environ` belongs to the whole process.

    Yields:
        The sandbox.

    Raises:
        MissingExtraError: moto is not installed.
        ConfigError: An argument is malformed, or the port cannot be used.
    """
    running = Sandbox(region=region, account=account, port=port, stop_grace=stop_grace)
    running.start()
    try:
        with _replaced_environment(running.environment) if set_environment else contextlib.nullcontext():
            yield running
    finally:
        running.close()


def _delete(folder: Path) -> None:
    """Delete a folder, also where a script made parts of it read-only."""
    try:
        shutil.rmtree(folder)
    except PermissionError:
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o700)
        shutil.rmtree(folder)


@contextlib.contextmanager
def _replaced_environment(variables: Mapping[str, str]) -> Iterator[None]:
    names = {name for name in os.environ if name.startswith("AWS_")} | set(variables)
    before = {name: os.environ.get(name) for name in names}
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
