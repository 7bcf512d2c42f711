"""What the checks share: the settings, clients that give up soon, the secrets, and what earlier checks learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smkit.aws import Clients, split_s3_uri
from smkit.diagnosis.masking import add_settings, secrets_of_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import boto3

    from smkit.config import Settings
    from smkit.jobs.checks.account import Caller


class _ImpatientClients(Clients):
    """The clients of a session that is another's, each of which gives up after some seconds, at the first try."""

    def __init__(self, owner: Clients, timeout: float) -> None:
        super().__init__(owner._region, owner._profile)
        self._owner = owner
        self._timeout = timeout

    def session(self) -> boto3.Session:
        return self._owner.session()

    def client(self, service: str) -> Any:
        from botocore.config import Config

        config = Config(
            connect_timeout=self._timeout,
            read_timeout=self._timeout,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=16,
        )
        session: Any = self.session()
        # The owner's lock: clients of one session may not be made by two threads at once.
        with self._owner._lock:
            if service not in self._clients:
                client = session.client(service, config=config)
                client.meta.events.register("before-parse", _drop_page)
                self._clients[service] = client
            return self._clients[service]

    def close(self) -> None:
        """Close the connections, those that a check still waits on too."""
        with self._owner._lock:
            for client in self._clients.values():
                client.close()


def _drop_page(response_dict: dict[str, Any], **_: Any) -> None:
    """Leave the status alone of a 5xx whose body is a page for people, of which botocore's parsers make no error."""
    if response_dict["status_code"] >= 500 and response_dict["body"].lstrip()[:9].lower() == b"<!doctype":
        response_dict["body"] = b""


class Context:
    """What the checks share.

    Args:
        settings: The settings; None where they cannot be read, and then no check that needs them runs.
        timeout: Seconds that a check has.
        write: Whether checks may write.
        buckets: Name -> further buckets to look at, each with a prefix in it.
        asked: Ids of checks that were asked for by name.
    """

    def __init__(
        self,
        settings: Settings | None,
        *,
        timeout: float,
        write: bool = True,
        buckets: Mapping[str, tuple[str, str]] | None = None,
        asked: Iterable[str] = (),
    ) -> None:
        self.secrets = secrets_of_environment()
        self.timeout = timeout
        self.write = write
        self.buckets = dict(buckets or {})
        self.asked = frozenset(asked)
        #: Who the caller is, once `identity` knows.
        self.caller: Caller | None = None
        #: The caller's ARN, once `identity` knows.
        self.caller_arn = ""
        #: Service -> seconds by which its clock is ahead of this machine's.
        self.clock_offsets: dict[str, float] = {}
        self._settings: Settings | None = None
        self._clients: _ImpatientClients | None = None
        if settings is not None:
            add_settings(self.secrets, settings)
            self._clients = _ImpatientClients(settings._clients, timeout)
            self._settings = _impatient(settings, self._clients, timeout)

    @property
    def settings(self) -> Settings:
        """The settings, whose clients give up soon."""
        if self._settings is None:
            raise RuntimeError("a check that uses the settings must need 'settings'")
        return self._settings

    @property
    def has_settings(self) -> bool:
        """Whether they could be read."""
        return self._settings is not None

    def client(self, service: str) -> Any:
        """Return a client that gives up soon.

        Raises:
            ConfigError: The profile does not exist, or the AWS configuration cannot be read.
        """
        return self.settings.client(service)

    def close(self) -> None:
        """Let go of the connections."""
        if self._clients is not None:
            self._clients.close()

    @property
    def uses_s3(self) -> bool:
        """Whether the store lies in S3."""
        return self.settings.root.startswith("s3://")

    @property
    def uses_sagemaker(self) -> bool:
        """Whether jobs run on SageMaker."""
        return self.settings.backend == "sagemaker"

    @property
    def prepares_sagemaker(self) -> bool:
        """Whether jobs run on SageMaker, or may: whoever sets a role means to start some there."""
        return self.uses_sagemaker or self.settings.role is not None

    @property
    def uses_aws(self) -> bool:
        """Whether anything in the settings, or that was asked for, needs AWS."""
        settings = self.settings
        return bool(
            self.uses_s3
            or self.prepares_sagemaker
            or self.buckets
            or settings.kms_key
            or settings.postgres.secret_id
            or self.asked & _AWS_CHECKS
        )

    @property
    def store(self) -> tuple[str, str]:
        """The bucket and the prefix of the store, the prefix without slashes around it."""
        bucket, prefix = split_s3_uri(self.settings.root)
        return bucket, prefix.strip("/")


#: Asked for by name, these run even where the settings keep everything on this machine.
_AWS_CHECKS = frozenset(
    {"profile", "region", "credentials", "identity", "clock", "reach-sts", "reach-s3", "reach-sagemaker", "sagemaker"}
)


def _impatient(settings: Settings, clients: Clients, timeout: float) -> Settings:
    """Return a copy of settings, with the same session, whose clients and connections give up soon."""
    limit = min(timeout, settings.postgres.connect_timeout)
    postgres = settings.postgres.model_copy(update={"connect_timeout": limit})
    # The root, because its default depends on the working folder, which the program may have changed.
    copy = settings.model_copy(update={"postgres": postgres, "root": settings.root})
    copy._clients = clients
    return copy
