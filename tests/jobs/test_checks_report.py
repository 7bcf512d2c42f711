from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from smkit.config import Settings
from smkit.errors import JobRefused
from smkit.jobs.checks import CheckReport, Finding, check_job
from smkit.jobs.checks.options import check_options, worst_case_hours
from smkit.jobs.checks.requirements import Requirements, read_requirements
from smkit.jobs.staging import StagedFile, stage
from tests.jobs.checking import Project

if TYPE_CHECKING:
    from pathlib import Path

PROBLEM = Finding("problem", "role", "there is no <role>", "create it")
WARNING = Finding("warning", "train.py:3", "hides \x1b[31m something")
UNKNOWN = Finding("unknown", "bucket", "the caller may not ask")


def report(*findings: Finding) -> CheckReport:
    return CheckReport("job-1", findings)


def test_problems_come_first_and_each_finding_once() -> None:
    found = report(UNKNOWN, WARNING, PROBLEM, WARNING)
    assert list(found) == [PROBLEM, WARNING, UNKNOWN]
    assert (found.problems, found.warnings, found.unknown) == ((PROBLEM,), (WARNING,), (UNKNOWN,))
    assert len(found) == 3
    assert found[0] == PROBLEM
    assert found[1:] == (WARNING, UNKNOWN)


def test_only_a_problem_is_not_ok() -> None:
    assert report().ok
    assert report(WARNING, UNKNOWN).ok
    assert not report(PROBLEM).ok


def test_truth_is_refused_since_it_would_be_misread() -> None:
    with pytest.raises(TypeError, match=r"ask report\.ok"):
        bool(report())


def test_a_report_reads_well() -> None:
    assert str(report()) == repr(report()) == "job 'job-1': nothing found"
    assert str(report(UNKNOWN, WARNING, PROBLEM)).splitlines() == [
        "job 'job-1': 1 problem, 1 warning, 1 thing not checked",
        "  problem  role: there is no <role>; create it",
        "  warning  train.py:3: hides \ufffd[31m something",
        "  unknown  bucket: the caller may not ask",
    ]
    assert "2 things not checked" in str(report(UNKNOWN, Finding("unknown", "role", "no"))).splitlines()[0]


def test_html_is_escaped() -> None:
    html = CheckReport("<b>", (PROBLEM, WARNING))._repr_html_()
    assert "&lt;b&gt;" in html
    assert "there is no &lt;role&gt;" in html
    assert "\x1b" not in html
    assert "<table>" not in report()._repr_html_()


@given(st.text(), st.text())
def test_nothing_of_a_finding_reaches_a_terminal_or_a_page_as_it_is(what: str, fix: str) -> None:
    found = report(Finding("warning", what, fix, what))
    assert all(char.isprintable() or char == "\n" for char in str(found))
    html = found._repr_html_()
    assert html.count("<td>") == 4
    assert html.count("<") == html.count(">")


def test_a_report_is_json() -> None:
    assert json.loads(json.dumps(report(PROBLEM).to_dict())) == {
        "job_name": "job-1",
        "ok": False,
        "findings": [{"level": "problem", "subject": "role", "what": "there is no <role>", "fix": "create it"}],
    }


def test_problems_refuse_the_job_with_all_of_them() -> None:
    report(WARNING, UNKNOWN).raise_for_problems()
    other = Finding("problem", "input 'train'", "nothing is there", "upload it")
    with pytest.raises(JobRefused) as caught:
        report(PROBLEM, WARNING, other).raise_for_problems()
    assert caught.value.problems == (PROBLEM, other)
    assert str(caught.value).splitlines() == [
        "job 'job-1' was not started: 2 problems",
        "  1. role: there is no <role>; create it",
        "  2. input 'train': nothing is there; upload it",
    ]


# --- requirements.txt -------------------------------------------------------------------------------------------


def requirements(text: str | bytes, here: bool = False, **files: str) -> Requirements:
    data = text.encode() if isinstance(text, str) else text
    staged = {path.replace("__", "/"): StagedFile(body.encode(), executable=False) for path, body in files.items()}
    return read_requirements({"requirements.txt": StagedFile(data, executable=False), **staged}, here=here)


def test_without_a_file_pip_does_not_run() -> None:
    assert read_requirements({}, here=False) == Requirements(False, {}, False, False, ())


@pytest.mark.parametrize(
    ("line", "name", "version"),
    [
        ("xgboost", "xgboost", ""),
        ("XGBoost==2.0.3", "xgboost", "2.0.3"),
        ("scikit_learn == 1.3.0 ; python_version < '3.10'", "scikit-learn", "1.3.0"),
        ("pandas[all] >=2,<3  # frames", "pandas", ""),
        ("foo (>=1)", "foo", ""),
        ("foo===1.0+local", "foo", "1.0+local"),
        ("foo==2.*", "foo", ""),
        ("foo @ https://example.com/foo-1.0-py3-none-any.whl", "foo", ""),
        ("https://example.com/My_Pkg-1.0-py3-none-any.whl", "my-pkg", ""),
        ("git+https://example.com/x.git@main#egg=My.Pkg", "my-pkg", ""),
        ("foo==1.0 \\\n    --hash=sha256:abc \\\n    --hash=sha256:def", "foo", "1.0"),
    ],
)
def test_requirements_that_pip_installs(line: str, name: str, version: str) -> None:
    found = requirements(f"# head\n\n{line}\n")
    assert dict(found.names) == {name: version}
    assert (found.findings, found.opaque) == ((), False)


def test_a_byte_order_mark_is_no_part_of_a_name() -> None:
    assert dict(requirements("\ufefffoo\n").names) == {"foo": ""}


def test_options_files_and_wheels_of_the_code() -> None:
    lines = ["-r more.txt", "--requirement=sub/last.txt", "-c limits.txt", "--pre", "-e ./lib"]
    lines += ["./wheels/own_pkg-1.0-py3-none-any.whl"]
    found = requirements(
        "\n".join(lines),
        **{
            "more.txt": "a\n-r requirements.txt\n",
            "sub__last.txt": "b\n-r deeper.txt\n",
            "sub__deeper.txt": "c==1\n",
            "limits.txt": "d<2\n",
            "wheels__own_pkg-1.0-py3-none-any.whl": "",
            "lib__setup.py": "",
        },
    )
    assert dict(found.names) == {"a": "", "b": "", "c": "1", "own-pkg": ""}
    assert found.opaque
    assert found.findings == ()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("-e ../lib", "'../lib' is a path of this machine"),
        ("/data/foo-1.0-py3-none-any.whl", "is a path of this machine"),
        ("foo @ file:///data/foo.whl", "'file:///data/foo.whl' is a path of this machine"),
        ("file:///data/foo.whl", "is a path of this machine"),
        ("--find-links /wheels", "'/wheels' is a path of this machine"),
        ("-r missing.txt", "'missing.txt' is not in the code"),
        ("pip install foo", "'pip install foo' is not a requirement"),
        ("foo=1.0", "'foo=1.0' is not a requirement"),
        ("foo >=", "'foo >=' is not a requirement"),
        ("--upgrade", "pip allows no option --upgrade"),
    ],
)
def test_requirements_that_cannot_work_there(line: str, what: str) -> None:
    found = requirements(f"xgboost\n{line}\n").findings
    assert [(item.level, item.subject) for item in found] == [("problem", "requirements.txt:2")]
    assert what in found[0].what
    assert found[0].fix


def test_a_file_that_is_not_text() -> None:
    assert requirements(b"\xff\xfe\x00").findings[0].what.startswith("is not UTF-8 text")


def test_an_index_with_a_password_is_not_repeated() -> None:
    found = requirements("--index-url https://me:hunter2@example.com/simple\nfoo\n")
    assert found.names_index
    assert found.findings[0].level == "warning"
    assert "hunter2" not in str(found.findings)


@given(st.text(alphabet="abzAZ019._-[],;()=<>!~* '\"&|@", min_size=1, max_size=12))
def test_what_a_requirement_is_agrees_with_packaging(line: str) -> None:
    """pip reads a line that is no option, URL or path with `packaging`."""
    text = line.strip()
    if not text or text.startswith(("-", ".")) or text.lower().endswith((".whl", ".tar.gz")):
        return
    found = requirements(text)
    try:
        parsed = Requirement(text)
    except InvalidRequirement:
        # Versions and markers are not judged here: pip will, and the two agree on what is no requirement at all.
        plain = re.fullmatch(r"[A-Za-z0-9._ -]+", text) is not None
        assert not plain or found.findings
    else:
        # `packaging` lets a name end with an underscore, which no index has: PEP 508 asks for a letter or digit.
        if parsed.name.endswith("_"):
            return
        assert dict(found.names).keys() == {canonicalize_name(parsed.name)}
        assert found.findings == ()


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_read(text: str) -> None:
    found = requirements(text)
    assert all(item.level in {"problem", "warning"} for item in found.findings)


# --- options ----------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path).write("train.py")


def sagemaker_settings(**values: Any) -> Settings:
    return Settings(**{"backend": "sagemaker", "bucket": "some-bucket", **values})


def options(project: Project, settings: Settings | None = None, **values: Any) -> list[str]:
    found = check_options(project.spec(**values), settings or sagemaker_settings())
    return [f"{item.level} {item}" for item in found]


def test_nothing_is_found_in_usual_options(project: Project) -> None:
    assert options(project, timeout=60, sagemaker={"spot": True, "max_wait": 120}) == []


@pytest.mark.parametrize("instance", ["ml.p3.2xlarge", "ml.g4dn.xlarge", "ml.trn1.2xlarge", "ml.p4d.24xlarge"])
def test_accelerators_are_money_for_nothing(project: Project, instance: str) -> None:
    (found,) = options(project, instance_type=instance)
    assert found.startswith(f"warning instance_type: {instance} has accelerators")


@pytest.mark.parametrize("instance", ["m5.large", "ml.m5", "local", "ml.m5.large "])
def test_what_is_no_instance(project: Project, instance: str) -> None:
    (found,) = options(project, instance_type=instance)
    assert found.startswith(f"problem instance_type: {instance!r} is not an instance")


@pytest.mark.parametrize(
    ("values", "hours"),
    [
        ({}, 24),
        ({"timeout": 1800}, 0.5),
        ({"timeout": 1800, "sagemaker": {"spot": True}}, 0.5),
        ({"timeout": 1800, "sagemaker": {"spot": True, "max_wait": 7200}}, 2),
        ({"timeout": 1800, "sagemaker": {"keep_alive": 1800}}, 1),
    ],
)
def test_the_worst_case_is_held_against_the_limit(project: Project, values: dict[str, Any], hours: float) -> None:
    assert worst_case_hours(project.spec(**values)) == hours
    assert options(project, sagemaker_settings(max_instance_hours=hours), **values) == []
    (found,) = options(project, sagemaker_settings(max_instance_hours=hours - 0.1), **values)
    assert found.startswith(f"problem max_instance_hours: the job may cost {hours:g} instance-hours at worst")


def test_what_lies_in_another_region(project: Project) -> None:
    found = options(
        project,
        sagemaker={
            "kms_key": "arn:aws:kms:eu-west-1:123456789012:key/x",
            "image_uri": "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/own:1",
        },
        region="cn-north-1",
    )
    assert [line.partition(":")[0] for line in found] == ["problem region", "problem kms_key", "problem image_uri"]


def test_sagemaker_needs_a_store_in_s3(project: Project, tmp_path: Path) -> None:
    (found,) = options(project, Settings(root=str(tmp_path)))
    assert found.startswith("problem root: the store is the folder")


def test_more_channels_than_sagemaker_takes(project: Project, tmp_path: Path) -> None:
    inputs = {f"c{number}": str(tmp_path) for number in range(21)}
    (found,) = options(project, inputs=inputs)
    assert "21 channels; SageMaker takes at most 20" in found


# --- the whole, on this machine -----------------------------------------------------------------------------------


def test_inputs_of_this_machine(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full.csv").write_text("a\n1\n")
    inputs = {"a": str(tmp_path / "empty"), "b": str(tmp_path / "gone"), "c": str(tmp_path / "full.csv")}
    found = project.check(inputs=inputs).problems
    assert [item.subject for item in found] == ["input 'a'", "input 'b'"]


def test_a_check_for_this_machine_uses_no_network(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    settings = Settings(bucket="some-bucket", role="arn:aws-cn:iam::123456789012:role/x")
    found = project.check("import json\n", settings=settings, inputs={"train": "s3://some-bucket/data/"})
    assert found.ok
    assert [item.subject for item in found.unknown] == ["input 'train'"]


def test_the_backend_is_that_of_the_settings_unless_it_is_given(project: Project, tmp_path: Path) -> None:
    project.write("train.py", "import hypothesis\n")
    spec = project.spec()
    code = stage(spec)
    local = Settings(root=str(tmp_path / "store"))
    assert check_job(spec, local, code).ok
    remote = check_job(spec, local, code, backend="sagemaker", seconds=0.01)
    assert {"root", "train.py:1"} <= {item.subject for item in remote.problems}


def test_inputs_that_do_not_fit_the_disk(project: Project, tmp_path: Path) -> None:
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(1_500_000_000)
    values = {"inputs": {"train": str(tmp_path / "large.bin")}}
    assert project.check(**values, sagemaker={"volume_size": 2}).ok
    (found,) = project.check(**values, sagemaker={"volume_size": 1}).problems
    assert str(found).startswith(
        "volume_size: 1.5 GB of inputs do not fit the instance's storage of 1 GB; set volume_size to 4"
    )
    assert project.check(**values, sagemaker={"volume_size": 1, "input_mode": "FastFile"}).ok


def test_another_scikit_learn(project: Project) -> None:
    (found,) = [item for item in project.check(framework_version="0.23-1") if item.subject == "scikit-learn"]
    assert found.level == "warning"
    assert "and 0.23.2 in the image 0.23-1" in found.what
    project.write("requirements.txt", "scikit-learn==1.1.0\n")
    (pinned,) = [item for item in project.check(framework_version="0.23-1") if "scikit-learn" in item.what]
    assert "replaces the image's scikit-learn 0.23.2 by 1.1.0" in pinned.what
