from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smkit.jobs.backend import JobStatus
from smkit.jobs.explain import FailureExplanation, explain

if TYPE_CHECKING:
    from pathlib import Path

LOG = "https://console.amazonaws.cn/cloudwatch/home?region=cn-northwest-1#logsV2"


def status(reason: str = "", exit_code: int | None = None, **values: Any) -> JobStatus:
    given = {"status": "Failed", "secondary_status": "Failed", "log_location": LOG, **values}
    return JobStatus(reason=reason, exit_code=exit_code, **given)


def traceback_of(error: str) -> list[str]:
    return [
        "Traceback (most recent call last):",
        '  File "/opt/ml/code/train.py", line 7, in <module>',
        "    main()",
        error,
    ]


TOOLKIT = [
    "2026-11-23 08:00:01,000 sagemaker-training-toolkit ERROR    Reporting training FAILURE",
    "2026-11-23 08:00:01,000 sagemaker-training-toolkit ERROR    ExecuteUserScriptError:",
    "ExitCode 1",
    'ErrorMessage ""',
    'Command "/miniconda3/bin/python train.py"',
]


@pytest.mark.parametrize(
    ("reason", "cause", "fix"),
    [
        (
            "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different type.",
            "capacity",
            "another instance_type",
        ),
        (
            "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error.",
            "capacity",
            "max_wait",
        ),
        (
            "ClientError: Please use an instance type with more memory, or reduce the size of job data",
            "out-of-memory",
            "more memory",
        ),
        (
            "ClientError: Artifact upload failed:ClientError: Out of Memory. Please use a larger instance",
            "out-of-memory",
            "",
        ),
        ("ClientError: Data download failed:Insufficient disk space", "disk-full", "volume_size"),
        ("ClientError: Artifact upload failed:Insufficient disk space", "disk-full", "volume_size"),
        (
            'ClientError: No S3 objects found under S3 URL "s3://b/data" given in input data source.',
            "data-not-found",
            "s3:ListBucket",
        ),
        (
            "ClientError: Data download failed:NoSuchKey (404): The specified key does not exist.",
            "data-not-found",
            "URI",
        ),
        (
            "ClientError: Data download failed. Please ensure that the role has s3:GetObject permission for s3://b/x",
            "access-denied",
            "s3:GetObject",
        ),
        (
            "ClientError: Data download failed:failed to download data. 403 Forbidden (403): Forbidden",
            "access-denied",
            "",
        ),
        (
            "ClientError: Data download failed:ensure that the subnet's route table has a route to an S3 VPC endpoint",
            "network",
            "gateway endpoint",
        ),
        (
            "ClientError: Data download failed:For FastFile mode, partial S3 prefix is not supported.",
            "fastfile-prefix",
            "'/'",
        ),
        (
            "ClientError: Cannot pull algorithm container. Either the image does not exist or it is private.",
            "image-pull",
            "ecr:BatchGetImage",
        ),
        ("InternalServerError: We encountered an internal error.  Please try again.", "internal-error", "new name"),
        (
            "ResourceLimitExceeded: The account-level service limit 'ml.m5.large for training job usage' is 0",
            "quota",
            "Service Quotas",
        ),
        (
            "ClientError: KeepAlivePeriodInSeconds is currently not supported in cn-northwest-1",
            "unsupported-in-region",
            "leave that option",
        ),
        ("AlgorithmError: , exit code: 137", "out-of-memory", "more memory"),
    ],
)
def test_what_the_service_says(reason: str, cause: str, fix: str) -> None:
    exit_code = 137 if "137" in reason else None
    found = explain("job-1", status(reason, exit_code), [])
    assert (found.cause, found.traceback) == (cause, "")
    assert fix in found.fix
    assert found.log_location == LOG


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        ("ModuleNotFoundError: No module named 'yaml'", "missing-module", "the line 'pyyaml' to requirements.txt"),
        ("ModuleNotFoundError: No module named 'helpers'", "missing-module", "source_dir"),
        ("ModuleNotFoundError: No module named 'smkit.jobs'", "missing-module", "smkit.entrypoint only"),
        (
            "ImportError: cannot import name 'Trainer' from 'smkit.entrypoint' (/opt/ml/code/smkit/entrypoint/x.py)",
            "missing-module",
            "a copy from the smkit which submitted the job",
        ),
        (
            "ImportError: cannot import name 'JobRunner' from 'smkit' (/opt/ml/code/smkit/__init__.py)",
            "missing-module",
            "smkit.entrypoint only",
        ),
        ("ModuleNotFoundError: No module named 'sklearn.ensemble._forest2'", "missing-module", "scikit-learn"),
        (
            "ImportError: cannot import name 'root_mean_squared_error' from 'sklearn.metrics' (/x/__init__.py)",
            "version-mismatch",
            "framework_version",
        ),
        ("AttributeError: module 'numpy' has no attribute 'bool8'", "version-mismatch", "framework_version"),
        ("ModuleNotFoundError: No module named 'numpy._core'", "version-mismatch", "pickle"),
        ("ValueError: node array from the pickle has an incompatible dtype:", "version-mismatch", "pickle"),
        (
            "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array with shape (10,)",
            "out-of-memory",
            "more memory",
        ),
        ("MemoryError", "out-of-memory", "more memory"),
        ("OSError: [Errno 28] No space left on device", "disk-full", "volume_size"),
        ("KeyError: 'price'", "column", "columns"),
        ("KeyError: \"['size', 'age'] not in index\"", "column", "columns"),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/opt/ml/input/data/train/a.csv'",
            "missing-file",
            "the channel must be among the job's inputs",
        ),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/opt/ml/model/v1/m'",
            "missing-file",
            "SM_MODEL_DIR",
        ),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/opt/ml/output/data/m'",
            "missing-file",
            "SM_OUTPUT_DATA_DIR",
        ),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/opt/ml/checkpoints/1'",
            "missing-file",
            "by variables",
        ),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: 'data/train.csv'",
            "missing-file",
            "SM_CHANNEL_<NAME>",
        ),
        (
            "botocore.exceptions.ClientError: An error occurred (AccessDenied) when calling the GetObject operation",
            "access-denied",
            "execution role",
        ),
        ('botocore.exceptions.EndpointConnectionError: Could not connect to the endpoint URL: "x"', "network", "VPC"),
        ("ValueError: Input X contains NaN.", "script-error", ""),
        ("acme.errors.CustomError", "script-error", ""),
    ],
)
@pytest.mark.parametrize("is_remote", [True, False], ids=["sagemaker", "local"])
def test_what_the_script_says(error: str, cause: str, words: str, is_remote: bool) -> None:
    log = ["starting", *traceback_of(error)]
    reason = "the script exited with code 1"
    if is_remote:
        log += [*TOOLKIT, *traceback_of("sagemaker_training.errors.ExecuteUserScriptError: ExecuteUserScriptError:")]
        reason = "AlgorithmError: framework error: \nTraceback (most recent call last):\n  File"
    found = explain("job-1", status(reason, 1), log)
    assert found.cause == cause
    assert found.traceback == "\n".join(traceback_of(error))
    assert error.partition(":")[0] in str(found)
    assert words in found.summary + found.fix


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["ERROR: Could not find a version that satisfies the requirement xgboots==2 (from versions: none)",
             "ERROR: No matching distribution found for xgboots==2"],
            "pip found no version of xgboots==2",
        ),
        (
            ["WARNING: Retrying after connection broken by 'ConnectTimeoutError(<x>, 'Connection to x timed out",
             "ERROR: Could not find a version that satisfies the requirement xgboost (from versions: none)",
             "ERROR: No matching distribution found for xgboost"],
            "could not reach the package index",
        ),
        (
            ["ERROR: Package 'x' requires a different Python: 3.7.10 not in '>=3.8'"],
            "does not support the image's Python 3.7.10",
        ),
        (["ERROR: ResolutionImpossible: for help visit x"], "contradict one another"),
        (["ERROR: Invalid requirement: 'foo=1' (from line 1 of requirements.txt)"], "does not understand: foo=1"),
        (["error: subprocess-exited-with-error", "Building wheel did not run."], "could not be compiled"),
        (["ERROR: something new"], "pip could not install requirements.txt"),
    ],
)  # fmt: skip
def test_what_pip_says(lines: list[str], words: str) -> None:
    here = explain(
        "job-1", status("pip could not install the requirements (exit code 1); its output is in the log"), lines
    )
    toolkit = [
        TOOLKIT[0],
        "2026-11-23 08:00:01,000 sagemaker-training-toolkit ERROR    InstallRequirementsError:",
        "ExitCode 1",
        'Command "/miniconda3/bin/python -m pip install -r requirements.txt"',
    ]
    there = explain("job-1", status("AlgorithmError: framework error: \nTraceback", 1), [*lines, *toolkit])
    for found in (here, there):
        assert found.cause == "requirements"
        assert words in found.summary
        assert found.fix
    if "reach" in words:
        assert "SMKIT_PIP_INDEX_URL" in here.fix


@pytest.mark.parametrize(
    ("exit_code", "cause"), [(-9, "out-of-memory"), (137, "out-of-memory"), (-11, "script-error"), (127, "shell")]
)
def test_exit_codes(exit_code: int, cause: str) -> None:
    assert explain("job-1", status(f"the script exited with code {exit_code}", exit_code), ["step 1"]).cause == cause


def test_the_toolkits_exit_code_counts() -> None:
    log = ["step 1", TOOLKIT[0], TOOLKIT[1], "ExitCode -9"]
    assert explain("job-1", status("AlgorithmError: , exit code: 1", 1), log).cause == "out-of-memory"


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"status": "Stopped", "secondary_status": "MaxRuntimeExceeded"}, "max-runtime"),
        ({"status": "Stopped", "secondary_status": "MaxWaitTimeExceeded"}, "max-wait"),
        ({"status": "Stopped", "secondary_status": "Stopped"}, "stopped"),
        ({"secondary_status": "Interrupted"}, "spot-interrupted"),
    ],
)
def test_states(values: dict[str, str], cause: str) -> None:
    found = explain("job-1", status("as it was said", **values), traceback_of("KeyError: 'x'"))
    assert found.cause == cause
    assert "timeout" in found.fix or cause != "max-runtime"


def test_a_script_that_saved_no_model() -> None:
    found = explain(
        "job-1", status("the script exited with code 0, but saved no model. It must write one", 0), ["done"]
    )
    assert found.cause == "no-model"
    assert "SM_MODEL_DIR" in found.fix


def test_what_the_template_says_of_arguments() -> None:
    log = ["train.py: error: 2 problems", "  --alpha: 'x' is not a number", "  --beta: is unknown"]
    found = explain("job-1", status("the script exited with code 2", 2), log)
    assert (found.cause, found.summary) == ("script-error", "the script failed: train.py: error: 2 problems")


@pytest.mark.parametrize(
    ("problems", "told"),
    [
        (["  - channel 'train': required, not given"], "channel 'train': required, not given"),
        (["  - --a: b", "  - --c: d"], "--a: b; --c: d"),
        ([f"  - --p{number}: no" for number in range(5)], "--p0: no; --p1: no; --p2: no; and 2 more"),
        ([], ""),
    ],
)
def test_a_list_of_problems_is_in_the_summary(problems: list[str], told: str) -> None:
    log = ["reading", "train.py: error:", *problems]
    found = explain("job-1", status("the script exited with code 2", 2), log)
    assert found.cause == "script-error"
    assert found.summary == f"the script failed: train.py: error: {told}".rstrip()


def test_a_shell_script_from_windows() -> None:
    log = ["train.sh: line 2: $'\\r': command not found"]
    assert explain("job-1", status("the script exited with code 1", 1), log).cause == "shell"


def test_what_a_script_only_logged_is_not_the_cause() -> None:
    log = [*traceback_of("ModuleNotFoundError: No module named 'yaml'"), *[f"step {n}" for n in range(300)]]
    assert explain("job-1", status("the script exited with code 3", 3), log).cause == "unknown"
    # A word in what the script printed is no service's message.
    reason = "AlgorithmError: ExecuteUserScriptError: AccessDenied is what I print"
    assert explain("job-1", status(reason, 1), traceback_of("ValueError: x")).cause == "script-error"


def test_a_module_of_another_python_is_said_to_be_one() -> None:
    log = traceback_of("ModuleNotFoundError: No module named 'zoneinfo'")
    found = explain("job-1", status("", 1), log, framework_version="1.2-1")
    assert found.fix == "the Python of the image 1.2-1 lacks this part of the standard library"
    lineage = {"framework_version": "1.2-1"}
    assert explain("job-1", status("", 1, lineage=lineage), log).fix == found.fix
    assert "source_dir" in explain("job-1", status("", 1), log, framework_version="7.7-7").fix


def test_nothing_is_known() -> None:
    found = explain("job-1", status(""), [])
    assert (found.cause, found.summary) == ("unknown", "neither the service nor the log says why")


def test_an_explanation_reads_well() -> None:
    found = explain("job-1", status("the script exited with code 1", 1), traceback_of("KeyError: 'price'"))
    lines = str(found).splitlines()
    assert lines[0] == "job 'job-1': the script asks for a column or key that is not there: KeyError: 'price' [column]"
    assert lines[2:6] == traceback_of("KeyError: 'price'")
    assert lines[-2].startswith("What to do: compare the columns")
    assert lines[-1] == f"The whole log: {LOG}"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.cause = "unknown"  # type: ignore[misc]


def test_a_long_traceback_keeps_its_ends() -> None:
    middle = [f"    frame {number}" for number in range(500)]
    log = ["Traceback (most recent call last):", *middle, "RecursionError: too deep"]
    found = explain("job-1", status("", 1), log)
    assert len(found.traceback.splitlines()) == 502
    shown = str(found).splitlines()
    assert len(shown) < 80
    assert "RecursionError: too deep" in shown
    assert any("lines left out" in line for line in shown)


@given(text=st.text(max_size=60), location=st.sampled_from(["/tmp/<b>", "javascript:alert(1)", LOG]))
def test_nothing_reaches_a_terminal_or_a_page_as_it_is(text: str, location: str) -> None:
    found = FailureExplanation(text, text, "unknown", text, text, location)
    assert all(char.isprintable() or char in "\n\t" for char in str(found))
    html = found._repr_html_()
    assert html.count("<") == html.count(">")
    assert html.count("<b>") == 1
    assert ("<a " in html) == (location == LOG)


def test_a_real_failure_of_a_real_script(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("def main():\n    import no_such_module_at_all\n\nmain()\n")
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    found = explain("job-1", status("the script exited with code 1", result.returncode), result.stderr.splitlines())
    assert found.cause == "missing-module"
    assert found.summary == "the module 'no_such_module_at_all' is not in the container"
    assert found.traceback == result.stderr.rstrip()
