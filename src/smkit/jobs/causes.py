"""What the words of a failure mean: the texts of SageMaker, pip and Python, each with its cause and what to do.

The texts of the service are those that AWS documents and users report, such as `CapacityError: Unable to provision
requested ML compute capacity` and `ClientError: Data download failed:...`. The first that matches wins, so the special
ones stand before the general.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from smkit.jobs.container_paths import REPLACEMENTS

Cause = Literal[
    "access-denied",
    "capacity",
    "column",
    "data-not-found",
    "disk-full",
    "fastfile-prefix",
    "image-pull",
    "internal-error",
    "max-runtime",
    "max-wait",
    "missing-file",
    "missing-module",
    "network",
    "no-model",
    "out-of-memory",
    "quota",
    "requirements",
    "script-error",
    "shell",
    "spot-interrupted",
    "stopped",
    "unknown",
    "unsupported-in-region",
    "version-mismatch",
]


class Rule(NamedTuple):
    """One text and its meaning.

    Attributes:
        cause: The cause.
        pattern: The text; its named groups fill `summary` and `fix`.
        summary: What happened.
        fix: What to do.
    """

    cause: Cause
    pattern: re.Pattern[str]
    summary: str
    fix: str


def _rule(cause: Cause, pattern: str, summary: str, fix: str) -> Rule:
    return Rule(cause, re.compile(pattern, re.IGNORECASE | re.DOTALL), summary, fix)


_MEMORY = "choose an instance_type with more memory, or read the data in parts (chunksize, fewer columns, float32)"
_DISK = "set volume_size higher: it holds the inputs, what the script writes, and the packed model"
_NETWORK = (
    "the job's subnets have no way to S3: add a gateway endpoint for S3 to the VPC, and let the security groups and "
    "network ACLs allow outbound HTTPS"
)
_CAPACITY = "try again later, or choose another instance_type or region; for spot, a longer max_wait or spot=False"
#: What travels with the code is a copy of the submitter's.
SMKIT_IN_CONTAINER = (
    "import from smkit.entrypoint only: nothing else of smkit is in the container, and that is a copy from the smkit "
    "which submitted the job. Correct the name, or submit with a smkit that has it"
)

#: What SageMaker says as the reason.
REASONS = (
    _rule(
        "capacity",
        r"CapacityError|InsufficientInstanceCapacity|InsufficientCapacity|unable to provision requested ML compute",
        "AWS has no such instance free",
        _CAPACITY,
    ),
    _rule(
        "quota",
        r"ResourceLimitExceeded|account-level service limit '(?P<what>[^']*)'",
        "the account's quota is used up",
        "ask for more in Service Quotas (Amazon SageMaker, '<instance> for training job usage'; spot has one of its "
        "own), or wait until other jobs end",
    ),
    _rule(
        "network",
        r"subnet's route table has a route to an S3 VPC endpoint|unable to execute request to S3",
        "the job could not reach S3 from its network",
        _NETWORK,
    ),
    _rule(
        "fastfile-prefix",
        r"partial S3 prefix is not supported",
        "with FastFile an input's URI must end with a whole file or folder name",
        "end the URI with '/', or use input_mode='File'",
    ),
    _rule("disk-full", r"insufficient disk space|no space left on device", "the instance's disk is full", _DISK),
    _rule(
        "out-of-memory",
        r"use an instance type with more memory|out of memory\. please use a larger instance|OutOfMemory",
        "the job needed more memory than the instance has",
        _MEMORY,
    ),
    _rule(
        "data-not-found",
        r"no S3 objects found under S3 URL \"?(?P<uri>s3://[^\s\"]+)|(?P<missing>NoSuchKey|NoSuchBucket|\b404\b)",
        "an input is not there",
        "check the URI, its region, and that the execution role may list the bucket (s3:ListBucket)",
    ),
    _rule(
        "image-pull",
        r"cannot pull algorithm container|cannot find (?:the requested image|repository)|image pull|"
        r"image .* does not exist|does not exist or its permissions are incorrect|invalid training image",
        "the container image could not be loaded",
        "check the image and its region; for an image of your own, let the execution role pull it (ecr:BatchGetImage, "
        "ecr:GetDownloadUrlForLayer, ecr:BatchCheckLayerAvailability), and SageMaker in the repository's policy; if "
        "the image is large, set volume_size higher",
    ),
    _rule(
        "unsupported-in-region",
        r"(?:is|are) (?:currently )?not (?:currently )?(?:supported|available) in (?:this|the|[a-z]+-[a-z0-9-]+)",
        "the region does not offer what the job asked for",
        "leave that option (or field of extra) out, or choose another region",
    ),
    _rule(
        "access-denied",
        r"AccessDenied|access denied|not authorized to perform|403 forbidden|\(403\)|could not assume role|"
        r"has (?P<action>s3:\w+|kms:\w+|ecr:\w+) permissions?",
        "the execution role may not do something that the job needs",
        "allow the execution role s3:GetObject and s3:ListBucket on the inputs, s3:PutObject below the store's root, "
        "and with a KMS key kms:Decrypt and kms:GenerateDataKey",
    ),
    _rule(
        "spot-interrupted",
        r"\bspot\b.*interrupt|interrupted.*\bspot\b",
        "AWS took the spot instance back",
        "run again; with checkpoint_uri a script can go on where it was, with spot=False nothing interrupts it",
    ),
    _rule(
        "internal-error",
        r"InternalServerError|we encountered an internal error",
        "SageMaker itself failed",
        "run again under a new name; if it goes on, AWS Support wants the job's ARN. Checkpoints of many "
        "GB are one cause",
    ),
    _rule(
        "no-model",
        r"saved no model",
        "the script ended well, but saved no model",
        "save it into the folder that SM_MODEL_DIR names; in a TrainingScript that is self.model_dir",
    ),
)

#: What pip says; the job ends before the script starts.
PIP = (
    _rule(
        "requirements",
        r"(?:connection to (?P<host>[\w.-]+) timed out|ReadTimeoutError|ConnectTimeoutError|NewConnectionError|"
        r"Max retries exceeded|Failed to establish a new connection|Temporary failure in name resolution)",
        "pip could not reach the package index",
        "set pip_index_url (SMKIT_PIP_INDEX_URL) to an index that the region reaches; from AWS China the public one is "
        "slow or out of reach, so use a mirror. In a VPC the subnets need a NAT gateway",
    ),
    _rule(
        "requirements",
        r"requires a different python: (?P<python>[\w.]+) not in '(?P<needs>[^']*)'",
        "a package of requirements.txt does not support the image's Python {python}",
        "choose a version that does, or a newer framework_version",
    ),
    _rule(
        "requirements",
        r"(?:no matching distribution found for|could not find a version that satisfies the requirement) (?P<what>\S+)",
        "pip found no version of {what} for the image's Python",
        "correct the name or the version in requirements.txt; a mirror may lack the newest ones",
    ),
    _rule(
        "requirements",
        r"ResolutionImpossible|conflicting dependencies",
        "the versions in requirements.txt contradict one another",
        "loosen the pins, or leave out what the image has already",
    ),
    _rule(
        "requirements",
        r"Invalid requirement: '?(?P<what>[^'\n]*)",
        "requirements.txt has a line that pip does not understand: {what}",
        "correct the line",
    ),
    _rule(
        "requirements",
        r"subprocess-exited-with-error|failed building wheel for (?P<what>\S+)|command 'g?cc' failed",
        "a package of requirements.txt could not be compiled",
        "choose a version that has a wheel for the image's Python",
    ),
)
#: pip's own last words, or those of whoever called it.
PIP_FAILED = re.compile(
    r"InstallRequirementsError|InstallModuleError|pip could not install|-m pip install -r requirements\.txt\"?$",
    re.MULTILINE,
)

#: Below /opt/ml -> what to do; the first that matches wins.
_OPT_ML = (
    (
        "/input/data",
        (
            "the channel must be among the job's inputs, and hold the file; name its folder by "
            'os.environ["SM_CHANNEL_<NAME>"], which is right in the container and on this machine'
        ),
    ),
    *(
        (
            f"/{folder}",
            (
                f"name the folder by {replacement}, which is right there and on this machine; a folder inside "
                "it must be made before a file is written there"
            ),
        )
        for folder, replacement in REPLACEMENTS.items()
    ),
    (
        "",
        (
            "its folders are named by variables, such as SM_MODEL_DIR and SM_CHANNEL_<NAME>, which are right "
            "there and on this machine"
        ),
    ),
)

#: What ends the script's traceback.
EXCEPTIONS = (
    _rule(
        "missing-module",
        r"(?:ModuleNotFoundError|ImportError): No module named '?(?P<module>[\w.]+)'?",
        "the module {module!r} is not in the container",
        "",
    ),
    _rule(
        "missing-module",
        r"cannot import name '(?P<name>\w+)' from (?:partially initialized module )?'(?P<module>smkit[\w.]*)'",
        "{module} in the container has no {name!r}",
        SMKIT_IN_CONTAINER,
    ),
    _rule(
        "version-mismatch",
        r"cannot import name '(?P<name>\w+)' from '(?!smkit\b)(?P<module>[\w.]+)'|"
        r"module '(?P<owner>(?:sklearn|numpy|pandas|scipy)[\w.]*)' has no attribute '(?P<attribute>\w+)'",
        "a package of the container has another version than the script was written for",
        "compare the versions of the image with yours (smkit's check names them); choose the framework_version that "
        "has yours, or pin the package in requirements.txt",
    ),
    _rule(
        "version-mismatch",
        r"No module named 'numpy\._core|node array from the pickle has an incompatible dtype|"
        r"unsupported pickle protocol|incompatible .* pickle|BitGenerator",
        "a pickle was made by other versions than those that read it",
        "make it with the versions of the image, or choose the framework_version that has yours",
    ),
    _rule(
        "out-of-memory",
        r"MemoryError|Unable to allocate|std::bad_alloc|Cannot allocate memory|malloc of size",
        "the script needed more memory than there is",
        _MEMORY,
    ),
    _rule("disk-full", r"No space left on device", "the disk is full", _DISK),
    _rule(
        "column",
        r"KeyError: ['\"](?P<column>[^'\"]+)['\"]|\[['\"](?P<columns>[^\]]+)['\"]\] not (?:found in axis|in index)",
        "the script asks for a column or key that is not there",
        "compare the columns of the inputs with those that the script names",
    ),
    *(
        _rule(
            "missing-file",
            rf"FileNotFoundError: .*?['\"](?P<path>/opt/ml{inside}(?:/[^'\"]*)?)['\"]",
            "the script opens a path of the training container that is not there: {path}",
            fix,
        )
        for inside, fix in _OPT_ML
    ),
    _rule(
        "missing-file",
        r"FileNotFoundError: .*?['\"](?P<path>[^'\"]+)['\"]",
        "the script opens a file that is not there: {path}",
        "data comes through inputs, in the folder that SM_CHANNEL_<NAME> names; files beside the script travel in "
        "source_dir; paths of this machine do not exist in the container",
    ),
    _rule(
        "access-denied",
        r"AccessDenied|not authorized to perform",
        "the script called AWS, and the execution role does not allow it",
        "allow the action in the policy of the execution role",
    ),
    _rule(
        "network",
        r"EndpointConnectionError|ConnectTimeoutError|ConnectionError|Max retries exceeded|Name or service not known",
        "the script could not reach a server",
        "a job with network_isolation has no network, one in a VPC only what its routes allow",
    ),
)

#: What a shell or the container's kernel says, without a traceback.
LOG = (
    _rule("out-of-memory", r"MemoryError|std::bad_alloc|Cannot allocate memory|Killed$", "memory ran out", _MEMORY),
    _rule("disk-full", r"No space left on device", "the disk is full", _DISK),
    _rule(
        "shell",
        r"\$?'?\\r'?: command not found|/bin/(?:ba)?sh\^M: bad interpreter",
        "the shell script has the line ends of Windows",
        "save it with the line ends of Unix (LF)",
    ),
)
