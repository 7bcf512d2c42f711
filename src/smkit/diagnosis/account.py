"""Checks of the AWS account: who asks, in which region, and whether SageMaker and the role are ready."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from smkit.aws import parse_arn
from smkit.aws_errors import AWS_ERRORS, error_code, explain_aws_error
from smkit.diagnosis.calls import failed_call
from smkit.diagnosis.findings import Finding, cannot_tell, ok, problem
from smkit.errors import did_you_mean
from smkit.jobs.checks.account import Caller, check_key, check_role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smkit.config import Settings
    from smkit.diagnosis.context import Context
    from smkit.jobs.checks.report import Finding as JobFinding

_SERVICE = "sagemaker.amazonaws.com"
#: botocore's names of where it found credentials.
_FOUND_IN = {
    "env": "the environment",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the AWS configuration file",
    "assume-role": "a role that the profile assumes",
    "assume-role-with-web-identity": "a role of a web identity",
    "sso": "single sign-on",
    "login": "aws login",
    "custom-process": "the profile's credential_process",
    "iam-role": "the instance's role",
    "container-role": "the container's role",
    "explicit": "the program",
}
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException"})
_UNKNOWN_KEY = frozenset({"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"})


def check_profile(context: Context) -> Finding:
    """Do the AWS configuration files say what the settings ask of them?"""
    context.settings.session()
    if context.settings.profile:
        return ok(f"profile {context.settings.profile!r}")
    named = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    return ok(f"profile {named!r}, from AWS_PROFILE" if named else "no profile is set: boto3's own chain")


def check_region(context: Context) -> Finding:
    """Is the region one that botocore knows, with SageMaker?"""
    settings = context.settings
    session = context.settings.session()
    known = session.get_available_regions("sts", partition_name=settings.partition)
    offered = session.get_available_regions("sagemaker", partition_name=settings.partition)
    if settings.region in offered:
        return ok(f"{settings.region} ({settings.partition}) has SageMaker")
    hint = did_you_mean(settings.region, offered)
    if settings.region in known:
        return problem(f"{settings.region} has no SageMaker, as far as botocore knows", f"set region to another{hint}")
    return cannot_tell(
        f"botocore does not know {settings.region!r}{hint}", "correct region; if it is a new one, upgrade boto3"
    )


def check_credentials(context: Context) -> Finding:
    """Are there credentials, and can they be had?"""
    try:
        credentials = context.settings.session().get_credentials()
        # Signs in, where they are a role's or of single sign-on.
        frozen = None if credentials is None else credentials.get_frozen_credentials()
    except AWS_ERRORS as error:
        said, _, fix = explain_aws_error(error, "get AWS credentials").partition("; ")
        return problem(said, fix or f"sign in again{_as_profile(context.settings)}")
    if credentials is None or frozen is None:
        return problem(
            "no AWS credentials found",
            "set profile (SMKIT_PROFILE), run `aws configure` or `aws sso login`, or give this machine a role",
        )
    context.secrets.add(frozen.secret_key, frozen.token)
    place = _FOUND_IN.get(credentials.method, credentials.method)
    return ok(f"found in {place}" + (", temporary" if frozen.token else ""))


def check_identity(context: Context) -> Finding:
    """Whose are the credentials, and are they of the region's partition? Asks STS in the region itself."""
    settings = context.settings
    try:
        identity = context.client("sts").get_caller_identity()
    except AWS_ERRORS as error:
        return _refused(error, context)
    context.caller_arn = str(identity["Arn"])
    account, partition = str(identity["Account"]), parse_arn(context.caller_arn).partition
    if partition != settings.partition:
        return problem(
            f"{context.caller_arn} is of partition {partition}, region {settings.region} is of {settings.partition}: "
            f"accounts, buckets and roles of one partition do not exist in another",
            f"set profile (SMKIT_PROFILE) to one of {settings.partition}, or region to one of {partition}",
        )
    context.caller = Caller(account, partition)
    return ok(f"{context.caller_arn} in account {account}")


def _refused(error: Exception, context: Context) -> Finding:
    settings = context.settings
    code = error_code(error)
    message = str(error.response.get("Error", {}).get("Message", "")) if isinstance(error, ClientError) else ""
    if code in _EXPIRED:
        return problem(f"the session has expired ({code})", f"sign in again{_as_profile(settings)}")
    if code in _UNKNOWN_KEY:
        return problem(
            f"AWS does not know the access key in partition {settings.partition} ({code}): keys of aws do not work in "
            f"aws-cn, nor the reverse, and deleted keys nowhere",
            f"set profile (SMKIT_PROFILE) to one with keys of {settings.partition}, or region to one of the keys' own "
            f"partition (now {settings.region}{_as_profile(settings)})",
        )
    if code == "RequestTimeTooSkewed" or "expired" in message or "not yet current" in message:
        return problem(f"AWS refuses the signature for its time ({code})", "correct this machine's clock")
    return failed_call(error, "ask STS who the caller is", seconds=context.timeout)


def _as_profile(settings: Settings) -> str:
    return f", profile {settings.profile!r}" if settings.profile else ""


def check_sagemaker(context: Context) -> Finding:
    """Does SageMaker answer the caller?"""
    try:
        context.client("sagemaker").list_training_jobs(MaxResults=1)
    except AWS_ERRORS as error:
        return failed_call(error, "list training jobs", seconds=context.timeout, action="sagemaker:ListTrainingJobs")
    instance = context.settings.instance_type
    return ok(f"answers; whether the quota of {instance} suffices, only a job can tell (Service Quotas shows it)")


def check_execution_role(context: Context) -> Finding:
    """Does the role exist, in this account, and may SageMaker assume it?"""
    finding = _worst(check_role(context.settings, _caller(context)))
    return finding or ok(f"{context.settings.role} exists, and SageMaker may assume it")


def check_pass_role(context: Context) -> Finding:
    """May the caller hand the role to SageMaker? Asks IAM's simulator, which changes nothing."""
    source = _policy_source(context)
    if source is None:
        return ok("the account's root user may pass every role", "do not work as the root user")
    if not source:
        return cannot_tell(f"IAM cannot simulate what {context.caller_arn} may do")
    role = _role_arn(context, str(context.settings.role))
    try:
        answer = context.client("iam").simulate_principal_policy(
            PolicySourceArn=source,
            ActionNames=["iam:PassRole"],
            ResourceArns=[role],
            ContextEntries=[
                {"ContextKeyName": "iam:PassedToService", "ContextKeyType": "string", "ContextKeyValues": [_SERVICE]}
            ],
        )["EvaluationResults"][0]
    except AWS_ERRORS as error:
        return failed_call(
            error, "simulate iam:PassRole", seconds=context.timeout, action="iam:SimulatePrincipalPolicy"
        )
    if answer["EvalDecision"] == "allowed":
        return ok(f"the caller may pass {role} to SageMaker")
    if missing := answer.get("MissingContextValues"):
        return cannot_tell(f"whether {role} may be passed depends on {', '.join(missing)}")
    return problem(
        f"the caller may not pass {role} to SageMaker ({answer['EvalDecision']})",
        f"allow iam:PassRole on {role} in the caller's policy, with iam:PassedToService {_SERVICE}",
    )


def _policy_source(context: Context) -> str | None:
    """Return the ARN whose policies are the caller's; "" where IAM knows none, None for the root user."""
    arn = parse_arn(context.caller_arn)
    kind, _, name = arn.resource.partition("/")
    if kind == "root":
        return None
    if kind == "assumed-role":
        return _role_arn(context, name.partition("/")[0])
    return f"arn:{arn.partition}:iam::{arn.account}:user/{name}" if kind == "user" else ""


def _role_arn(context: Context, role: str) -> str:
    """Return the ARN of a role given by name; its path only IAM knows."""
    if role.startswith("arn:"):
        return role
    try:
        return str(context.client("iam").get_role(RoleName=role)["Role"]["Arn"])
    except AWS_ERRORS:
        # Most roles have no path; where this one does, the simulation says that there is no such role.
        caller = _caller(context)
        return f"arn:{caller.partition}:iam::{caller.account}:role/{role}"


def check_kms_key(context: Context) -> Finding:
    """Is the key there, enabled, and may the caller encrypt with it? KMS makes no data key: it is a dry run."""
    key = str(context.settings.kms_key)
    finding = _worst(check_key(key, context.settings))
    if finding is not None and finding.outcome == "problem":
        return finding
    client: Any = context.client("kms")
    try:
        client.generate_data_key(KeyId=key, KeySpec="AES_256", DryRun=True)
    except AWS_ERRORS as error:
        if error_code(error) == "AccessDeniedException":
            return problem(
                f"the caller may not encrypt with {key}", "allow kms:GenerateDataKey and kms:Decrypt on the key"
            )
        # https://docs.aws.amazon.com/kms/latest/developerguide/testing-permissions.html
        if error_code(error) != "DryRunOperationException":
            return failed_call(error, f"use the key {key}", seconds=context.timeout, action="kms:GenerateDataKey")
    return ok(f"the caller may encrypt with {key} in {context.settings.region}")


def _caller(context: Context) -> Caller:
    if context.caller is None:
        raise RuntimeError("a check that uses the caller must need 'identity'")
    return context.caller


def _worst(findings: Sequence[JobFinding]) -> Finding | None:
    """Return what the check of a job found, None where it found nothing."""
    for level in ("problem", "unknown", "warning"):
        for finding in findings:
            if finding.level == level:
                if level == "problem":
                    return problem(finding.what, finding.fix or "correct it")
                return cannot_tell(finding.what, finding.fix)
    return None
