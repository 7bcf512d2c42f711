"""The AWS scikit-learn images: which versions exist, and where each region keeps them.

The table is that of the SageMaker SDK, version 2.257 and 3.27 together; a test compares it with the SDK that is
installed, entry by entry. `https://docs.aws.amazon.com/sagemaker/latest/dg-ecr-paths/sagemaker-algo-docker-registry-paths.html`
"""

from __future__ import annotations

from smkit.aws import partition_of
from smkit.errors import ConfigError, did_you_mean

_REPOSITORY = "sagemaker-scikit-learn"
_SUFFIXES = {
    "aws": "amazonaws.com",
    "aws-cn": "amazonaws.com.cn",
    "aws-us-gov": "amazonaws.com",
    "aws-iso": "c2s.ic.gov",
    "aws-iso-b": "sc2s.sgov.gov",
    "aws-iso-f": "csp.hci.ic.gov",
}
#: Region -> the AWS account whose registry holds its images.
_ACCOUNTS = {
    "af-south-1": "510948584623",
    "ap-east-1": "651117190479",
    "ap-northeast-1": "354813040037",
    "ap-northeast-2": "366743142698",
    "ap-northeast-3": "867004704886",
    "ap-south-1": "720646828776",
    "ap-south-2": "628508329040",
    "ap-southeast-1": "121021644041",
    "ap-southeast-2": "783357654285",
    "ap-southeast-3": "951798379941",
    "ap-southeast-4": "106583098589",
    "ca-central-1": "341280168497",
    "ca-west-1": "190319476487",
    "cn-north-1": "450853457545",
    "cn-northwest-1": "451049120500",
    "eu-central-1": "492215442770",
    "eu-central-2": "680994064768",
    "eu-north-1": "662702820516",
    "eu-south-1": "978288397137",
    "eu-south-2": "104374241257",
    "eu-west-1": "141502667606",
    "eu-west-2": "764974769150",
    "eu-west-3": "659782779980",
    "il-central-1": "898809789911",
    "me-central-1": "272398656194",
    "me-south-1": "801668240914",
    "sa-east-1": "737474898029",
    "us-east-1": "683313688378",
    "us-east-2": "257758044811",
    "us-gov-east-1": "237065988967",
    "us-gov-west-1": "414596584902",
    "us-iso-east-1": "833128469047",
    "us-isob-east-1": "281123927165",
    "us-isof-east-1": "108575199400",
    "us-isof-south-1": "124985052026",
    "us-west-1": "746614075791",
    "us-west-2": "246618743249",
}
#: The regions that have the images.
REGIONS = tuple(_ACCOUNTS)
#: The versions that have a training image, oldest first.
TRAINING_VERSIONS = ("0.20.0", "0.23-1", "1.0-1", "1.2-1", "1.4-2", "1.4-2-py312", "1.9-0")
#: The versions that have an inference image.
INFERENCE_VERSIONS = tuple(version for version in TRAINING_VERSIONS if version != "1.4-2")


def training_image(framework_version: str, region: str) -> str:
    """Return the URI of the image that a training job runs in.

    Raises:
        ConfigError: No such image exists; the message lists those that do.
    """
    return _image("training", TRAINING_VERSIONS, framework_version, region)


def inference_image(framework_version: str, region: str) -> str:
    """Return the URI of the image that an endpoint or a batch transform runs in.

    Raises:
        ConfigError: No such image exists, though one for training may; the message lists those that do.
    """
    return _image("inference", INFERENCE_VERSIONS, framework_version, region)


def has_inference_image(framework_version: str, region: str) -> bool:
    """Say whether a model that was trained with this version can be served with it in the region."""
    return framework_version in INFERENCE_VERSIONS and region in _ACCOUNTS


def _image(purpose: str, versions: tuple[str, ...], framework_version: str, region: str) -> str:
    if framework_version not in versions:
        hint = did_you_mean(framework_version, versions)
        raise ConfigError(
            f"framework_version {framework_version!r} has no {purpose} image{hint}; versions are {', '.join(versions)}"
        )
    if region not in _ACCOUNTS:
        raise ConfigError(
            f"region {region!r} has no scikit-learn images{did_you_mean(region, REGIONS)}; regions are "
            f"{', '.join(REGIONS)}. With an image of your own there, set image_uri"
        )
    registry = f"{_ACCOUNTS[region]}.dkr.ecr.{region}.{_SUFFIXES[partition_of(region)]}"
    return f"{registry}/{_REPOSITORY}:{framework_version}-cpu-py3"
