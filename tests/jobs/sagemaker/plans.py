"""Training plans for the tests of both ways of asking."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from smkit.jobs.sagemaker.images import training_image
from smkit.jobs.sagemaker.plan import TrainingPlan

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

REGION = "cn-northwest-1"
ROLE = "arn:aws-cn:iam::123456789012:role/service-role/Train"
KEY = "arn:aws-cn:kms:cn-northwest-1:123456789012:key/0b1f6f1e-0000-4000-8000-000000000000"


def plan_of(**changes: Any) -> TrainingPlan:
    """Return the smallest plan, with some fields changed."""
    name = changes.get("name", "prices-1")
    fields: dict[str, Any] = {
        "name": name,
        "region": REGION,
        "role": ROLE,
        "image_uri": training_image("1.2-1", REGION),
        "framework_version": "1.2-1",
        "entry_point": "train.py",
        "source_uri": f"s3://prices/smkit/jobs/{name}/source/sourcedir.tar.gz",
        "hyperparameters": {},
        "channels": {},
        "output_uri": "s3://prices/smkit/jobs",
        "instance_type": "ml.m5.large",
        "volume_size": 30,
        "max_run": 86400,
        "spot": False,
        "max_wait": None,
        "checkpoint_uri": None,
        "keep_alive": None,
        "subnets": (),
        "security_groups": (),
        "kms_key": None,
        "network_isolation": False,
        "input_mode": "File",
        "environment": {},
        "tags": {},
        "metric_definitions": {},
        "extra": {},
    }
    return TrainingPlan(**fields | changes)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
#: Names that the API takes: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
_LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12)
_TAG = st.text(st.characters(categories=["L", "N", "Zs"], include_characters="_.:/=+-@"), max_size=12)
_WORD = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
_FLOAT = st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _FLOAT | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_EXTRA = st.fixed_dictionaries(
    {},
    optional={
        "RetryStrategy": st.fixed_dictionaries({"MaximumRetryAttempts": st.integers(1, 30)}),
        "EnableInterContainerTrafficEncryption": st.booleans(),
        "ExperimentConfig": st.fixed_dictionaries({"ExperimentName": _WORD}),
        "ProfilerConfig": st.just({"DisableProfiler": True}),
        "InfraCheckConfig": st.just({"EnableInfraCheck": True}),
    },
)


@st.composite
def plans(draw: Any) -> TrainingPlan:
    """Any plan that smkit may make."""
    spot = draw(st.booleans())
    max_run = draw(st.integers(1, 86400))
    in_vpc = draw(st.booleans())
    isolated = draw(st.booleans())
    words: SearchStrategy[str] = _WORD.filter(lambda word: not isolated or word != "code")
    return plan_of(
        name=draw(st.from_regex(r"[a-zA-Z0-9](-?[a-zA-Z0-9]){0,62}", fullmatch=True)),
        entry_point=draw(st.sampled_from(["train.py", "run.sh", "models/train.py"])),
        hyperparameters=draw(st.dictionaries(_LINE, _JSON, max_size=5)),
        channels=draw(st.dictionaries(words, _WORD.map("s3://prices/data/{}/".format), max_size=3)),
        instance_type=draw(st.sampled_from(["ml.m5.large", "ml.m5d.large", "ml.g4dn.xlarge", "ml.g5.xlarge"])),
        volume_size=draw(st.integers(1, 16384)),
        max_run=max_run,
        spot=spot,
        max_wait=max_run + draw(st.integers(0, 3600)) if spot else None,
        checkpoint_uri=draw(st.none() | _WORD.map("s3://prices/checkpoints/{}".format)),
        keep_alive=None if spot else draw(st.none() | st.integers(1, 3600)),
        subnets=("subnet-1", "subnet-2") if in_vpc else (),
        security_groups=("sg-1",) if in_vpc else (),
        kms_key=draw(st.sampled_from([None, KEY])),
        network_isolation=isolated,
        input_mode=draw(st.sampled_from(["File", "FastFile"])),
        environment=draw(st.dictionaries(_WORD.map("V{}".format), _TEXT, max_size=3)),
        tags=draw(st.dictionaries(_TAG.filter(bool), _TAG, max_size=3)),
        metric_definitions=draw(st.dictionaries(_WORD, _WORD.map("{}=([0-9.]+)".format), max_size=3)),
        extra=draw(_EXTRA),
    )
