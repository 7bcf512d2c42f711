"""Secrets are kept out of what everybody who may describe a job sees."""

from __future__ import annotations

from typing import Any

import pytest

from smkit.errors import ConfigError
from smkit.jobs.secrets import refuse_secrets
from smkit.jobs.spec import JobSpec

# Put together here, so that no scanner takes them for real ones.
ACCESS_KEY = "AKIA" + "IOSFODNN7EXAMPLE"
GITHUB_TOKEN = "ghp_" + "a1" * 18
PRIVATE_KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("password", "hunter2"),
        ("DB_PASSWORD", "hunter2"),
        ("db-passwd", "hunter2"),
        ("api_key", "hunter2"),
        ("apikey", "hunter2"),
        ("aws_secret_access_key", "hunter2"),
        ("AWS_SESSION_TOKEN", "hunter2"),
        ("PGPASSWORD", "hunter2"),
        ("dbPassword", "hunter2"),
        ("mySecretKey", "hunter2"),
        ("service_token", "hunter2"),
        ("token", "hunter2"),
        ("hf_token", "hunter2"),
        ("client_secret", "hunter2"),
        ("credentials", "hunter2"),
        ("connection_string", "hunter2"),
        ("note", f"key {ACCESS_KEY} of the build"),
        ("source", "postgresql://ann:hunter2@db.example.com/houses"),
        ("index", "https://:hunter2@pypi.example.com/simple"),
        ("key", PRIVATE_KEY),
        ("remote", GITHUB_TOKEN),
        ("options", {"db": {"password": "hunter2"}}),
        ("options", [{"password": "hunter2"}]),
    ],
)
def test_a_secret_is_refused_and_not_shown(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_secrets({"alpha": 1, name: value}, "hyperparameter")
    said = str(caught.value)
    assert f"hyperparameter '{name}" in said
    assert "Secrets Manager" in said
    for secret in ("hunter2", ACCESS_KEY, GITHUB_TOKEN, "MIIE"):
        assert secret not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_pattern", r"(?u)\b\w\w+\b"),
        ("pad_token", "<pad>"),
        ("model.eos_token", "</s>"),
        ("tokenizer", "char"),
        ("max_tokens", 10),
        ("keyword", "secretary"),
        ("key", "house_id"),
        ("sort_key", "price"),
        ("primary_key", "id"),
        ("db_secret_id", "prod/houses"),
        ("db_secret", "arn:aws-cn:secretsmanager:cn-northwest-1:123456789012:secret:prod/houses"),
        ("password", ""),
        ("secret", None),
        ("url", "https://example.com/a:b@c"),
        ("uri", "s3://bucket/a@b"),
        ("PIP_INDEX_URL", "https://mirrors.example.com/simple"),
    ],
)
def test_what_only_sounds_alike_passes(name: str, value: Any) -> None:
    refuse_secrets({name: value}, "hyperparameter")


def test_a_job_holds_none() -> None:
    with pytest.raises(ConfigError, match=r"hyperparameter 'db\.password' looks like a secret, by its name"):
        JobSpec(name="job", entry_point="train.py", hyperparameters={"db": {"password": "hunter2"}})
