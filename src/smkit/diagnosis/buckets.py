"""Checks of buckets: the store's, and those that data sources read."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from smkit.aws_errors import AWS_ERRORS, NOT_FOUND_CODES, error_code
from smkit.diagnosis.calls import failed_call
from smkit.diagnosis.findings import Finding, cannot_tell, ok, problem
from smkit.jobs.checks.calls import is_denied
from smkit.storage.base import RESERVED

if TYPE_CHECKING:
    from smkit.diagnosis.context import Context

#: The object with which the store itself asks a server about conditional writes. It stays; it is empty.
PROBE = f"{RESERVED}probe"
_MISSING = NOT_FOUND_CODES | {"NoSuchBucket"}
#: The key exists, or another conditional write of it is under way.
_REFUSED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def check_bucket(context: Context) -> Finding:
    """Is the store's bucket there, the caller's own, and in the region of the settings?"""
    bucket, _ = context.store
    region, failure = _find(context, bucket)
    if failure is not None:
        return failure
    if region and region != context.settings.region:
        return problem(
            f"bucket {bucket!r} is in {region}, region is {context.settings.region}: SageMaker needs both in one",
            f"set region to {region!r}, or use a bucket in {context.settings.region}",
        )
    place = f"bucket {bucket!r} is there" + (f", in {region}" if region else "")
    if context.caller is None:
        failure = _try_to_list(context)
        return failure or ok(f"{place}; whose it is was not asked, since the caller's account is not known")
    account = context.caller.account
    failure = _try_to_list(context, ExpectedBucketOwner=account)
    if failure is None:
        return ok(f"{place}, owned by account {account}")
    if failure.outcome == "problem" and _try_to_list(context) is None:
        return problem(
            f"bucket {bucket!r} belongs to another account than the caller's, {account}",
            "use a bucket of your own: what is written to another's bucket, its owner may read, change and delete",
        )
    return failure


def check_source_bucket(context: Context, bucket: str, prefix: str) -> Finding:
    """Can a bucket that data comes from, or what lies under a prefix of it, be listed and read?"""
    region, failure = _find(context, bucket)
    if failure is not None:
        return failure
    finding = _read_first(context, bucket, prefix)
    if finding.outcome != "ok" or not region or region == context.settings.region:
        return finding
    return ok(
        f"{finding.text}; it is in {region}",
        f"a training job in {context.settings.region} cannot read it directly: build a dataset from it, or copy it",
    )


def _find(context: Context, bucket: str) -> tuple[str, Finding | None]:
    """Return the region of a bucket, "" where the server does not tell, and why it cannot be found."""
    try:
        answer = context.client("s3").head_bucket(Bucket=bucket)
    except AWS_ERRORS as error:
        if error_code(error) in _MISSING:
            partition = context.settings.partition
            return "", problem(
                f"there is no bucket {bucket!r} in partition {partition}",
                "create it, or correct its name; no partition sees the buckets of another",
            )
        # S3 tells the region even to those whom it denies the call, such as who may list one prefix only.
        if not isinstance(error, ClientError) or not (is_denied(error) or _region_in(error.response)):
            return "", failed_call(error, f"find bucket {bucket}", seconds=context.timeout, action="s3:ListBucket")
        return _region_in(error.response), None
    return _region_in(answer), None


def _region_in(answer: Any) -> str:
    return str(answer["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region", ""))


def _try_to_list(context: Context, **conditions: str) -> Finding | None:
    """Return why the store cannot be listed; None where it can."""
    bucket, prefix = context.store
    prefix = f"{prefix}/" if prefix else ""
    try:
        context.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1, **conditions)
    except AWS_ERRORS as error:
        if is_denied(error):
            return problem(
                f"S3 does not let the caller list s3://{bucket}/{prefix}: the bucket is another account's, or a policy "
                f"forbids it",
                "correct the bucket's name, or allow s3:ListBucket on it in the caller's policy and the bucket's",
            )
        return failed_call(error, f"list s3://{bucket}/{prefix}", seconds=context.timeout)
    return None


def check_read(context: Context) -> Finding:
    """Can the store be listed, and an object of it be read?"""
    bucket, prefix = context.store
    return _read_first(context, bucket, f"{prefix}/" if prefix else "")


def _read_first(context: Context, bucket: str, prefix: str) -> Finding:
    client = context.client("s3")
    uri = f"s3://{bucket}/{prefix}"
    try:
        page = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=10)
    except AWS_ERRORS as error:
        return _access(error, f"list {uri}", context, "s3:ListBucket")
    keys = [item["Key"] for item in page.get("Contents", ()) if item["Size"]]
    if not keys:
        return ok(
            f"{uri} can be listed; it has no object yet that could be read"
            if not page.get("Contents")
            else f"{uri} can be listed; its first objects are empty"
        )
    try:
        with client.get_object(Bucket=bucket, Key=keys[0], Range="bytes=0-0")["Body"] as body:
            body.read()
    except AWS_ERRORS as error:
        return _access(error, f"read s3://{bucket}/{keys[0]}", context, "s3:GetObject (and kms:Decrypt on its key)")
    return ok(f"{uri} can be listed and read")


def check_write(context: Context) -> Finding:
    """May the caller write, does S3 keep to `If-None-Match: *`, and may the caller read what was written?"""
    bucket, prefix = context.store
    key = f"{prefix}/{PROBE}" if prefix else PROBE
    client = context.client("s3")
    key_id = context.settings.kms_key
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_id} if key_id else {}
    put = partial(_put_if_absent, client, Bucket=bucket, Key=key, Body=b"", **encryption)
    try:
        # As the store does: the second one must be refused, whichever way the first one ended.
        ignored = put() and put()
    except AWS_ERRORS as error:
        if error_code(error) == "NotImplemented":
            return _ignores_conditions(bucket)
        return _access(error, f"write s3://{bucket}/{key}", context, "s3:PutObject")
    if ignored:
        return _ignores_conditions(bucket)
    try:
        with client.get_object(Bucket=bucket, Key=key)["Body"] as body:
            body.read()
    except AWS_ERRORS as error:
        return _access(error, f"read s3://{bucket}/{key}", context, "s3:GetObject")
    return ok(f"s3://{bucket}/{key} was written once, refused the second time, and read back")


def _put_if_absent(client: Any, **request: Any) -> bool:
    try:
        client.put_object(IfNoneMatch="*", **request)
    except ClientError as error:
        if error_code(error) in _REFUSED:
            return False
        raise
    return True


def _ignores_conditions(bucket: str) -> Finding:
    return problem(
        f"the server of bucket {bucket!r} ignores 'If-None-Match: *', so writers could overwrite each other",
        "use Amazon S3, or a server that supports conditional writes, or a folder",
    )


def _access(error: Exception, what: str, context: Context, action: str) -> Finding:
    """A denial, which elsewhere leaves a question open, answers this one."""
    if is_denied(error) or error_code(error).startswith("KMS."):
        return problem(
            f"the caller may not {what} ({error_code(error)})",
            f"allow {action}, in the caller's policy, the bucket's and the key's",
        )
    return failed_call(error, what, seconds=context.timeout, action=action)


def check_public_access(context: Context) -> Finding:
    """Does the bucket refuse to be made public?"""
    bucket, _ = context.store
    try:
        answer = context.client("s3").get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    except AWS_ERRORS as error:
        if error_code(error) != "NoSuchPublicAccessBlockConfiguration":
            action = "s3:GetBucketPublicAccessBlock"
            return failed_call(error, "read the block of public access", seconds=context.timeout, action=action)
        answer = {}
    missing = [name for name in _BLOCKS if not answer.get(name)]
    if not missing:
        return ok("blocked")
    return problem(
        f"bucket {bucket!r} does not block public access ({', '.join(missing)} not set)",
        f"aws s3api put-public-access-block --bucket {bucket} --public-access-block-configuration "
        + ",".join(f"{name}=true" for name in _BLOCKS),
    )


def check_hardening(context: Context) -> Finding:
    """Are versioning and a policy that refuses plain HTTP in place? They are advised, not needed."""
    bucket, _ = context.store
    client = context.client("s3")
    found: list[str] = []
    advised: list[str] = []
    unknown: list[Finding] = []
    try:
        state = client.get_bucket_versioning(Bucket=bucket).get("Status")
        (found if state == "Enabled" else advised).append("versioning")
    except AWS_ERRORS as error:
        unknown.append(failed_call(error, "read its versioning", seconds=context.timeout))
    try:
        policy = client.get_bucket_policy(Bucket=bucket)["Policy"]
        (found if _refuses_plain_http(policy) else advised).append("TLS only")
    except AWS_ERRORS as error:
        if error_code(error) == "NoSuchBucketPolicy":
            advised.append("TLS only")
        else:
            unknown.append(failed_call(error, "read its policy", seconds=context.timeout))
    if len(unknown) == 2:
        return cannot_tell(unknown[0].text, "allow s3:GetBucketVersioning and s3:GetBucketPolicy, to let smkit look")
    parts = [f"has {' and '.join(found)}"] if found else []
    parts += [f"lacks {' and '.join(advised)}"] if advised else []
    text = "; ".join([*parts, *(finding.text for finding in unknown)])
    return ok(text, "harden the bucket as the page on promises shows" if advised else "")


def _refuses_plain_http(policy: str) -> bool:
    statements: Any = json.loads(policy).get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        flags = statement.get("Condition", {}).get("Bool", {})
        values = [value for name, value in flags.items() if name.lower() == "aws:securetransport"]
        if statement.get("Effect") == "Deny" and values and str(values[0]).strip("[]'\"").lower() == "false":
            return True
    return False
