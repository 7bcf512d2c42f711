"""Every check, in the order of the report."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from smkit.diagnosis import account, buckets, database, machine, network
from smkit.diagnosis.findings import Check

if TYPE_CHECKING:
    from smkit.diagnosis.context import Context

_MACHINE, _NETWORK, _ACCOUNT = "This machine", "The way to AWS", "The AWS account"
_STORE, _DATA, _JOBS = "The store", "Data", "Jobs"
#: Service -> the check that its endpoint answers.
_REACHED = {"sts": "STS", "s3": "S3", "sagemaker": "SageMaker"}
_SIGNED = ("settings", "credentials")
#: Whether the caller is known is asked once: whoever is refused there is refused everywhere.
_KNOWN = ("identity",)
FURTHER_BUCKET = "bucket:"


def catalogue(context: Context) -> tuple[Check, ...]:
    """Return every check for these settings; which of them apply, they say themselves."""
    return (*_machine(), *_network(), *_account(), *_store(), *_data(context), *_jobs())


def _machine() -> tuple[Check, ...]:
    return (
        Check("disk", _MACHINE, "disk space", machine.check_disks),
        Check("sdk", _MACHINE, "SageMaker SDK", machine.check_sdk, needs=()),
        Check("parity", _MACHINE, "parity Pythons", machine.check_parity),
    )


def _network() -> tuple[Check, ...]:
    reached = tuple(
        Check(
            f"reach-{service}",
            _NETWORK,
            f"{name} reachable",
            partial(network.check_reach, service=service),
            needs=("settings", "profile"),
            not_for=_no_aws,
        )
        for service, name in _REACHED.items()
    )
    return (
        Check("proxy", _NETWORK, "proxies", network.check_proxies, needs=()),
        *reached,
        # They may fail, one by one: one server that tells its time is enough.
        Check(
            "clock",
            _NETWORK,
            "clock",
            network.check_clock,
            behind=tuple(check.id for check in reached),
            not_for=_no_aws,
        ),
    )


def _account() -> tuple[Check, ...]:
    signed = (*_SIGNED, "identity")
    return (
        Check("profile", _ACCOUNT, "AWS configuration", account.check_profile, not_for=_no_aws),
        Check("region", _ACCOUNT, "region", account.check_region, needs=("settings", "profile"), not_for=_no_aws),
        Check(
            "credentials", _ACCOUNT, "credentials", account.check_credentials,
            needs=("settings", "profile"), not_for=_no_aws,
        ),
        Check(
            "identity", _ACCOUNT, "identity", account.check_identity,
            needs=(*_SIGNED, "reach-sts"), not_for=_no_aws,
        ),
        Check("kms", _ACCOUNT, "KMS key", account.check_kms_key, needs=_SIGNED, after=_KNOWN, not_for=_no_key),
        Check(
            "sagemaker", _ACCOUNT, "SageMaker", account.check_sagemaker,
            needs=(*_SIGNED, "reach-sagemaker"), after=_KNOWN, not_for=_no_sagemaker,
        ),
        Check("role", _ACCOUNT, "execution role", account.check_execution_role, needs=signed, not_for=_no_role),
        Check(
            "pass-role", _ACCOUNT, "iam:PassRole", account.check_pass_role,
            needs=(*signed, "role"), not_for=_no_role,
        ),
    )  # fmt: skip


def _store() -> tuple[Check, ...]:
    reached = (*_SIGNED, "reach-s3")
    there = (*reached, "bucket")
    return (
        Check("root", _STORE, "folder", machine.check_folder, not_for=_store_in_s3),
        Check("bucket", _STORE, "bucket", buckets.check_bucket, needs=reached, after=_KNOWN, not_for=_no_bucket),
        Check("bucket-read", _STORE, "reading", buckets.check_read, needs=there, not_for=_no_bucket),
        Check("bucket-write", _STORE, "writing", buckets.check_write, needs=there, not_for=_not_to_be_written),
        Check("bucket-public", _STORE, "public access", buckets.check_public_access, needs=there, not_for=_no_bucket),
        Check("bucket-hardening", _STORE, "hardening", buckets.check_hardening, needs=there, not_for=_no_bucket),
    )


def _data(context: Context) -> tuple[Check, ...]:
    with_secret = context.has_settings and context.settings.postgres.secret_id is not None
    further = tuple(
        Check(
            f"{FURTHER_BUCKET}{name}",
            _DATA,
            f"bucket {name}",
            partial(buckets.check_source_bucket, bucket=bucket, prefix=prefix),
            needs=(*_SIGNED, "reach-s3"),
            after=_KNOWN,
        )
        for name, (bucket, prefix) in context.buckets.items()
    )
    return (
        *further,
        Check(
            "secret", _DATA, "database secret", database.check_secret, needs=_SIGNED, after=_KNOWN, not_for=_no_secret
        ),
        Check(
            "postgres",
            _DATA,
            "PostgreSQL",
            database.check_postgres,
            needs=("settings", "secret") if with_secret else ("settings",),
            not_for=_no_postgres,
        ),
    )


def _jobs() -> tuple[Check, ...]:
    return (Check("image", _JOBS, "training image", machine.check_image),)


def _no_aws(context: Context) -> str:
    return "" if context.uses_aws else "the settings need no AWS: data, models and jobs are on this machine"


def _no_bucket(context: Context) -> str:
    return "" if context.uses_s3 else f"no bucket is set: everything lies in {context.settings.root}"


def _not_to_be_written(context: Context) -> str:
    return _no_bucket(context) or ("" if context.write else "no write was to be tried")


def _store_in_s3(context: Context) -> str:
    return f"the store is {context.settings.root}" if context.uses_s3 else ""


def _no_sagemaker(context: Context) -> str:
    return "" if "sagemaker" in context.asked else _no_role(context)


def _no_role(context: Context) -> str:
    return "" if context.prepares_sagemaker else "backend is 'local' and no role is set: jobs run here"


def _no_key(context: Context) -> str:
    return "" if context.settings.kms_key else "no kms_key is set"


def _no_secret(context: Context) -> str:
    return "" if context.settings.postgres.secret_id else "no postgres.secret_id is set"


def _no_postgres(context: Context) -> str:
    postgres = context.settings.postgres
    return "" if postgres.host or postgres.database or postgres.secret_id else "no postgres is set"
