"""Settings: where things live, as whom, and where each value came from.

Precedence, highest first, in `Settings._layers`: arguments, `SMKIT_*` environment variables, `.env`, `smkit.toml`,
`[tool.smkit]` of `pyproject.toml`, defaults. The three files are those of the project's folder: the nearest, from the
working folder up, that has a `smkit.toml` or a `[tool.smkit]`, so that a notebook in a subfolder sees the project's
settings; else the working folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path  # noqa: TC003 - pydantic evaluates the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from smkit import _config_layers as layers
from smkit import _config_rules as rules
from smkit.aws import Clients, check_bucket, partition_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import boto3
    from typing_extensions import Self

Text = Annotated[str, Field(min_length=1)]
Ids = Annotated[tuple[str, ...], NoDecode, BeforeValidator(rules.split_commas)]


class PostgresSettings(BaseModel):
    """How to reach PostgreSQL. The field names are libpq's where libpq has one. Frozen.

    Args:
        host: Host name or address.
        port: TCP port.
        database: Database name.
        user: User name.
        password: The password; never shown.
        secret_id: Name or ARN of a Secrets Manager secret whose JSON holds `username` and `password` and may hold
            `host`, `port` and `dbname`, the format of RDS. Fields given here win over the secret's.
        sslmode: `verify-full` (default): TLS, and the certificate must be valid for the host. `verify-ca`: valid,
            for any host. `require`: encrypted, nobody's identity checked. `disable`: plain text.
        sslrootcert: PEM file of the CAs to trust, such as the RDS bundle; default: the system's.
        connect_timeout: Seconds to wait for a connection.

    Raises:
        ConfigError: A value is malformed or unknown. All problems are listed at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: Annotated[Text, AfterValidator(rules.check_host)] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    database: Text | None = None
    user: Text | None = None
    password: SecretStr | None = None
    secret_id: Text | None = None
    sslmode: Literal["verify-full", "verify-ca", "require", "disable"] = "verify-full"
    sslrootcert: Annotated[Path, AfterValidator(rules.absolute)] | None = None
    connect_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0

    # At run time only, so that type checkers and editors keep the signature made of the fields.
    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            problems: list[str] = []
            layer = layers.given(values, type(self), "argument", problems)
            problems += self._fill(layer)
            if problems:
                raise layers.invalid_settings(problems)

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_"):
                raise layers.frozen(name, type(self), "settings.postgres")
            super().__setattr__(name, value)

        def __delattr__(self, name: str) -> None:
            raise layers.frozen(name, type(self), "settings.postgres")

    def _fill(self, layer: layers.Layer) -> list[str]:
        """Validate the values into this new object; return the problems."""
        try:
            BaseModel.__init__(self, **layer.values)
        except ValidationError as error:
            return layers.problems_of(error, type(self), layer.origins)
        return []

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed; unlike pydantic's own, the changes are validated.

        Raises:
            ConfigError: A changed value is malformed or unknown.
        """
        if not update:
            return super().model_copy(deep=deep)
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | dict(update))


class SettingOrigin(NamedTuple):
    """One line of `Settings.explain()`: a setting, its value with secrets masked, and where the value came from."""

    name: str
    value: str
    origin: str


class SettingOrigins(tuple[SettingOrigin, ...]):
    """The lines of `Settings.explain()`; printed, they are a table."""

    __slots__ = ()

    def __str__(self) -> str:
        name_width = max((len(line.name) for line in self), default=0)
        value_width = min(48, max((len(line.value) for line in self), default=0))
        return "\n".join(f"{line.name:<{name_width}}  {line.value:<{value_width}}  {line.origin}" for line in self)

    __repr__ = __str__


class Settings(BaseSettings):
    """Where things live and as whom. Frozen; safe to share between threads and to send to another process.

    boto3's own `AWS_REGION` and `AWS_DEFAULT_REGION` are not read: the region is `region`, or `SMKIT_REGION`.

    Args:
        region: AWS region.
        profile: Profile of the shared AWS configuration; default: boto3's credential chain.
        role: Execution role of training jobs, an ARN or a role's name.
        bucket: Bucket of the store; its name or ARN.
        project: Prefix in the bucket: the store of one project.
        root: The store itself, a folder or an `s3://` URI. Default: `.smkit` in the project's folder, or
            `s3://<bucket>/<project>` once a bucket is set.
        backend: Where jobs run: `local` (this machine) or `sagemaker`.
        instance_type: Instance of training jobs.
        framework_version: Tag of the AWS scikit-learn image, such as `1.2-1`.
        local_environment: What runs the jobs of this machine: `host` (this Python), or the Python and packages of an
            image, such as `1.2-1`; `1.2-1[toolkits]` has SageMaker's own packages too.
        max_instance_hours: Most instance-hours that one job on SageMaker may cost at worst; default: no limit.
        kms_key: KMS key that encrypts what is written to S3: its id, its ARN, or an alias.
        subnets: Subnet ids of training jobs; needs `security_groups`.
        security_groups: Security group ids of training jobs; needs `subnets`.
        tags: Tags of everything that is created.
        pip_index_url: Package index for jobs; in China a mirror. May hold a password, hence never shown.
        allow_pickle: Let `ArtifactStore.load` unpickle without being asked each time.
        postgres: How to reach PostgreSQL.

    Raises:
        ConfigError: A value is malformed, unknown or contradicts another. All problems are listed at once.
    """

    model_config = SettingsConfigDict(
        env_prefix=layers.PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    # The order matters: a value is checked against those above it.
    region: Annotated[str, rules.rule(rules.REGION, "a region such as 'cn-northwest-1'")] = "cn-northwest-1"
    profile: Text | None = None
    role: Annotated[str, AfterValidator(rules.check_role)] | None = None
    bucket: (
        Annotated[
            str,
            BeforeValidator(rules.bucket_name),
            AfterValidator(check_bucket),
            AfterValidator(rules.check_bucket_home),
        ]
        | None
    ) = None
    project: Annotated[
        str, rules.rule(rules.PROJECT, "1 to 63 lower-case letters, digits, '-' and '_', the first a letter or digit")
    ] = "smkit"
    root: Annotated[str, BeforeValidator(rules.path_text), AfterValidator(rules.check_root)] = Field(
        default_factory=rules.default_root
    )
    backend: Literal["local", "sagemaker"] = "local"
    instance_type: Annotated[str, rules.rule(rules.INSTANCE_TYPE, "an instance such as 'ml.m5.large'")] = "ml.m5.large"
    framework_version: Annotated[str, rules.rule(rules.FRAMEWORK_VERSION, "an image tag such as '1.2-1'")] = "1.2-1"
    local_environment: Annotated[
        str, rules.rule(rules.LOCAL_ENVIRONMENT, "'host', an image tag such as '1.2-1', or '1.2-1[toolkits]'")
    ] = "host"
    max_instance_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    kms_key: Annotated[Text, AfterValidator(rules.check_kms_key)] | None = None
    subnets: Annotated[Ids, rules.ids("subnet-")] = ()
    security_groups: Annotated[Ids, rules.ids("sg-"), AfterValidator(rules.check_security_groups)] = ()
    tags: Annotated[Mapping[str, str], AfterValidator(rules.check_tags)] = Field(default_factory=dict)
    pip_index_url: SecretStr | None = None
    allow_pickle: bool = False
    postgres: Annotated[PostgresSettings, AfterValidator(rules.check_secret_home)] = PostgresSettings()

    _origins: dict[layers.KeyPath, str] = PrivateAttr(default_factory=dict)
    _clients: Clients = PrivateAttr()

    # At run time only, so that type checkers and editors keep the signature made of the fields.
    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            problems: list[str] = []
            self._fill(self._layers(values, problems), problems)

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_"):
                raise layers.frozen(name, type(self), "settings")
            super().__setattr__(name, value)

        def __delattr__(self, name: str) -> None:
            raise layers.frozen(name, type(self), "settings")

    @classmethod
    def _layers(cls, arguments: Mapping[str, Any], problems: list[str]) -> list[layers.Layer]:
        """Collect the values of every place, highest precedence first; add what is wrong to `problems`."""
        folder = layers.project_folder()
        found = [
            layers.given(arguments, cls, "argument", problems),
            layers.read_environment(cls, problems),
        ]
        if (folder / ".env").is_file():
            found.append(layers.read_dotenv(folder / ".env", cls, problems))
        if (folder / "smkit.toml").is_file():
            found.append(layers.read_toml(folder / "smkit.toml", (), cls, problems))
        if (folder / "pyproject.toml").is_file():
            found.append(layers.read_toml(folder / "pyproject.toml", ("tool", "smkit"), cls, problems))
        return found

    def _fill(self, given: Iterable[layers.Layer], problems: list[str]) -> None:
        """Merge the layers, highest first, and validate them into this new object."""
        merged = layers.Layer({}, {})
        for layer in reversed(list(given)):
            merged = layers.merge(merged, layer, type(self))
        values = dict(merged.values)
        if isinstance(values.get("postgres"), dict):
            # On its own first, so that its errors are listed field by field beside the others.
            postgres = PostgresSettings.__new__(PostgresSettings)
            inner = {path[1:]: origin for path, origin in merged.origins.items() if path[0] == "postgres"}
            found = postgres._fill(layers.Layer(values.pop("postgres"), inner))
            problems += [f"postgres.{problem}" for problem in found]
            if not found:
                values["postgres"] = postgres
        try:
            # Not BaseSettings': its sources would merge a second time, without remembering who said what.
            BaseModel.__init__(self, **values)
        except ValidationError as error:
            problems += layers.problems_of(error, type(self), merged.origins)
        # Raised here, not in the handler: pydantic's error holds the values, and must not hang on ours.
        if problems:
            raise layers.invalid_settings(problems)
        self._origins = merged.origins
        self._clients = Clients(self.region, self.profile)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some settings changed; unlike pydantic's own, the changes are validated.

        What this object was given stays, defaults such as `root` are computed anew, and nothing is read again.

        Raises:
            ConfigError: A changed value is malformed, unknown or contradicts another.
        """
        if not update:
            return super().model_copy(deep=deep)
        problems: list[str] = []
        changed = layers.given(update, type(self), "argument", problems)
        kept = layers.given(
            {name: getattr(self, name) for name in self.model_fields_set}, type(self), "argument", problems
        )
        copy = type(self).__new__(type(self))
        copy._fill((changed, layers.Layer(kept.values, self._origins)), problems)
        return copy

    def __eq__(self, other: object) -> bool:
        """Compare the values; where they came from does not matter."""
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)

    def __hash__(self) -> int:
        return hash((self.region, self.profile, self.root, self.backend))

    @property
    def partition(self) -> str:
        """The region's partition, such as `aws-cn`."""
        return partition_of(self.region)

    def session(self) -> boto3.Session:
        """Return the one boto3 session that every call goes through; made on first use.

        Raises:
            ConfigError: The profile does not exist, or the AWS configuration cannot be read.
        """
        return self._clients.session()

    def client(self, service: str) -> Any:
        """Return that session's client of a service, made on first use and shared.

        Raises:
            ConfigError: As `session`; or boto3 knows no such service.
        """
        return self._clients.client(service)

    def explain(self) -> SettingOrigins:
        """Say of every setting its value, secrets masked, and where the value came from."""
        lines = []
        nested: dict[layers.KeyPath, object]
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, BaseModel):
                nested = {(name, inner): getattr(value, inner) for inner in type(value).model_fields}
            else:
                nested = {(name,): value}
            for path, leaf in nested.items():
                origin = layers.origin_of(self._origins, path) or "default"
                lines.append(SettingOrigin(".".join(path), _shown(leaf), origin))
        return SettingOrigins(lines)


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if value is None or value in ((), {}):
        return "-"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text}" for key, text in value.items())
    return str(value)
