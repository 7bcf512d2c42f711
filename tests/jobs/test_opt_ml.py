"""Scripts that name `/opt/ml`, in real mount namespaces, as this user and as one without any right."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from smkit.config import Settings
from smkit.errors import JobError, ParityEnvironmentError, TrainingFailed, TrainingStopped, TrainingTimeout
from smkit.jobs import JobRunner, launching, opt_ml, supervisor
from smkit.jobs.container_paths import Mention, find_mentions
from smkit.jobs.launching import why_no_private_mount
from smkit.jobs.local import LocalBackend
from smkit.jobs.staging import StagedFile
from tests.jobs.conftest import SAVE_MODEL, processes_in

if TYPE_CHECKING:
    from tests.jobs.conftest import Script

#: Becomes an ordinary user, whoever runs the tests: without any right, as a user namespace's user 1000; `forbidden`:
#: one who may not make namespaces either, as in many containers.
BECOME = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
user, group = os.geteuid(), os.getegid()
if libc.unshare(0x10000000) != 0:
    sys.exit(77)
for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
if sys.argv[1] == "forbidden":
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
os.execv(sys.argv[2], sys.argv[2:])
"""
RUN = """
import json, sys
from smkit.config import Settings
from smkit.errors import SmkitError
from smkit.jobs import JobRunner, local_request
if len(sys.argv) > 4:
    local_request.why_no_private_mount = lambda *_: ""
try:
    job = JobRunner(Settings(root=sys.argv[1])).run(sys.argv[2], json.loads(sys.argv[3]), job_name="theirs")
except SmkitError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
USERS = ["this user", "ordinary"]


def _reason() -> str:
    return why_no_private_mount(Path("/nowhere"), "/opt/ml")


pytestmark = pytest.mark.skipif(bool(_reason()), reason=f"no mounts of one's own here: {_reason()}")


def become(user: str) -> list[str]:
    return [] if user == "this user" else [sys.executable, "-I", "-S", "-c", BECOME, user]


def outside() -> tuple[str, list[str]]:
    """What a job must leave as it was: the mounts, and what lies in /opt."""
    listed = sorted(map(str, Path("/opt").rglob("*")))[:1000] if Path("/opt").exists() else ["no /opt"]
    return Path("/proc/self/mountinfo").read_text(), listed


def namespaces_with(folder: Path) -> list[int]:
    """Return the processes in whose namespace something of a folder is mounted."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if str(folder) in Path(f"/proc/{process.pid}/mountinfo").read_text():
                found.append(process.pid)
    return found


# --- jobs -------------------------------------------------------------------------------------------------------

HARD_CODED = """
import os, shutil
assert os.path.samefile("/opt/ml", os.path.dirname(os.environ["SM_MODEL_DIR"]))
shutil.copy("/opt/ml/input/data/train/a.csv", "/opt/ml/model/copied.csv")
with open("/opt/ml/model/seen.txt", "w") as file:
    file.write(f"{os.geteuid()} {os.getegid()} {sorted(os.listdir('/opt'))} {os.getcwd()}")
with open("/opt/ml/output/data/more.txt", "w") as file:
    file.write("more")
"""


@pytest.mark.parametrize("user", USERS)
def test_a_script_that_names_opt_ml(runner: JobRunner, tmp_path: Path, script: Script, user: str) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    path, before = script(HARD_CODED), outside()
    inputs = {"train": str(tmp_path / "a.csv")}
    if user == "this user":
        runner.run(path, inputs, job_name="theirs")
    else:
        command = [*become(user), sys.executable, "-c", RUN, str(tmp_path / "store"), path, json.dumps(inputs)]
        subprocess.run(command, check=True)
    folder = tmp_path / "store/jobs/theirs"
    with tarfile.open(folder / "output/model.tar.gz") as tar:
        assert tar.getnames() == ["copied.csv", "seen.txt"]
        seen = tar.extractfile("seen.txt").read().decode()  # type: ignore[union-attr]
    with tarfile.open(folder / "output/output.tar.gz") as tar:
        assert tar.getnames() == ["more.txt"]
    ids = f"{os.geteuid()} {os.getegid()}" if user == "this user" else "1000 1000"
    others = {entry.name for entry in Path("/opt").iterdir()} if Path("/opt").exists() else set()
    assert seen == f"{ids} {sorted(others | {'ml'})} {folder / 'ml/code'}"
    assert outside() == before
    assert namespaces_with(folder) == []


UNSEEN = {
    "joined": "import os\nbase = '/opt'\nopen(os.path.join(base, 'ml', 'model', 'm'), 'w')\n",
    "f-string": "base = '/opt'\nopen(f'{base}/ml/model/m', 'w')\n",
    "bytes": "open(b'/opt/ml/model/m', 'wb')\n",
    "added": "open('/opt' + '/ml/model/m', 'w')\n",
    "divided": "from pathlib import Path\n(Path('/') / 'opt' / 'ml' / 'model' / 'm').touch()\n",
}
UNSEEN_FILES = {
    "helper": ("go.sh", {"go.sh": "#!/bin/sh\nsh ./helper\n", "helper": "touch /opt/ml/model/m\n"}),
    "bash": ("go.sh", {"go.sh": "#!/bin/sh\nsh ./helper.bash\n", "helper.bash": "touch /opt/ml/model/m\n"}),
    "text": ("train.py", {"train.py": "open(open('paths.txt').read(), 'w')\n", "paths.txt": "/opt/ml/model/m"}),
}


@pytest.mark.parametrize("code", UNSEEN.values(), ids=UNSEEN.keys())
def test_a_path_that_is_put_together(runner: JobRunner, script: Script, code: str) -> None:
    with tarfile.open(runner.run(script(code)).model_archive()) as tar:
        assert tar.getnames() == ["m"]


@pytest.mark.parametrize(("entry_point", "files"), UNSEEN_FILES.values(), ids=UNSEEN_FILES.keys())
def test_a_path_in_another_file(runner: JobRunner, tmp_path: Path, entry_point: str, files: dict[str, str]) -> None:
    (tmp_path / "src").mkdir()
    for name, text in files.items():
        (tmp_path / "src" / name).write_text(text)
    with tarfile.open(runner.run(entry_point, source_dir=tmp_path / "src").model_archive()) as tar:
        assert tar.getnames() == ["m"]


@pytest.mark.parametrize("how", ["hyperparameters", "environment"])
def test_a_value_that_names_it_is_enough(runner: JobRunner, script: Script, how: str) -> None:
    code = SAVE_MODEL + "print(os.path.isdir(os.environ.get('WHERE') or os.environ['SM_HP_WHERE']))\n"
    job = runner.run(script(code), **{how: {"WHERE": "/opt/ml/model"}})
    assert "True" in job.logs()


def test_two_jobs_at_once_see_each_its_own(runner: JobRunner, script: Script, tmp_path: Path) -> None:
    code = """
        import os, time
        name = os.environ["TRAINING_JOB_NAME"]
        open("/opt/ml/model/name", "w").write(name)
        open(os.path.join(os.environ["MEET"], name), "w").close()
        while len(os.listdir(os.environ["MEET"])) < 2:
            time.sleep(0.01)
        assert open("/opt/ml/model/name").read() == name
        """
    (tmp_path / "meet").mkdir()
    jobs = [
        runner.submit(script(code), job_name=name, environment={"MEET": str(tmp_path / "meet")}) for name in ("a", "b")
    ]
    for job in jobs:
        with tarfile.open(job.wait(logs=False).model) as tar:
            assert tar.extractfile("name").read().decode() == job.name  # type: ignore[union-attr]


CHILDREN = (
    "MODEL = '/opt/ml/model'\nimport os, signal, subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print('up', flush=True)\n"
)


@pytest.mark.parametrize(
    ("end", "exit_code"),
    [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", -9), ("time.sleep(600)", -15)],
)
def test_however_it_ends_nothing_is_left(
    runner: JobRunner, script: Script, tmp_path: Path, end: str, exit_code: int
) -> None:
    expected = TrainingTimeout if exit_code == -15 else TrainingFailed
    with pytest.raises(expected) as caught:
        runner.run(script(CHILDREN + end), timeout=1 if exit_code == -15 else None)
    assert caught.value.exit_code == exit_code
    assert processes_in(tmp_path) == []
    assert namespaces_with(tmp_path) == []


def test_a_stop_ends_everything(runner: JobRunner, script: Script, tmp_path: Path) -> None:
    job = runner.submit(script(CHILDREN + "time.sleep(600)"))
    assert "up" in job.logs(follow=True)
    assert len(namespaces_with(tmp_path)) == 3
    job.stop()
    with pytest.raises(TrainingStopped):
        job.wait(logs=False)
    assert processes_in(tmp_path) == []
    assert namespaces_with(tmp_path) == []


def test_a_script_dies_with_its_supervisor(tmp_path: Path, script: Script) -> None:
    """As a user whose rights change on the way, of which the kernel makes a process forget whose end is its own."""
    path = script("MODEL = '/opt/ml/model'\nimport time\nprint('up', flush=True)\ntime.sleep(600)\n")
    caller = subprocess.Popen(
        [*become("ordinary"), sys.executable, "-c", RUN, str(tmp_path / "store"), path, "{}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "up\n" in iter(caller.stdout.readline, "")  # type: ignore[union-attr]
    os.kill(int((tmp_path / "store/jobs/theirs/lock").read_text()), signal.SIGKILL)
    assert "the process that ran the job was killed" in caller.communicate(timeout=30)[1]
    assert processes_in(tmp_path) == []


def test_links_to_opt_ml_are_packed_as_what_they_lead_to(runner: JobRunner, script: Script) -> None:
    code = """
        import os
        os.makedirs("/opt/ml/model/v1/deep")
        open("/opt/ml/model/v1/m.bin", "w").write("m")
        os.symlink("/opt/ml/model/v1", "/opt/ml/model/latest")
        os.symlink("/opt//ml/model/latest/m.bin", "/opt/ml/model/m.bin")
        os.symlink("/opt/ml/output/data/plot", "/opt/ml/output/data/last")
        open("/opt/ml/output/data/plot", "w").write("p")
        """
    job = runner.run(script(code))
    with tarfile.open(job.model) as tar:
        assert tar.getnames() == ["latest", "latest/deep", "latest/m.bin", "m.bin", "v1", "v1/deep", "v1/m.bin"]
        assert all(member.isfile() or member.isdir() for member in tar)
        assert tar.extractfile("m.bin").read() == b"m"  # type: ignore[union-attr]
    with pytest.raises(TrainingFailed, match=r"'code' in .* links to .*/ml/code, which is not in the folder"):
        runner.run(script(SAVE_MODEL + "os.symlink('/opt/ml/code', '/opt/ml/model/code')\n"))


def test_links_elsewhere_stay_as_they_are(tmp_path: Path) -> None:
    links = {"a": "/opt/mlx/b", "b": "../c", "c": "/opt", "d": "/opt/ml", "e": "/opt/ml/../etc"}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    supervisor.move_links(tmp_path, "/opt/ml", "/there")
    assert {name: str((tmp_path / name).readlink()) for name in links} == links | {"d": "/there"}


# --- where it cannot be done ------------------------------------------------------------------------------------


def test_where_it_is_forbidden_an_error_names_the_line(tmp_path: Path, script: Script) -> None:
    path = script("import os\n\nos.listdir('/opt/ml/input/data/train')\nopen('/opt/ml/model/m', 'w')\n")
    command = [*become("forbidden"), sys.executable, "-c", RUN, str(tmp_path / "store"), path, "{}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    for part in (
        "JobError: train.py, line 3: '/opt/ml/input/data/train' is a path of the training container",
        "the kernel does not grant a user and a mount namespace",
        'os.environ["SM_CHANNEL_TRAIN"]',
        "train.py, line 4: '/opt/ml/model/m'",
    ):
        assert part in result.stderr
    assert not (tmp_path / "store").exists()
    # Had it looked possible, the job says the same.
    result = subprocess.run([*command, "blind"], capture_output=True, text=True, check=False)
    assert "TrainingFailed: " in result.stderr
    assert "with the job's folder mounted: the kernel does not grant a user and a mount namespace" in result.stderr


def test_where_it_is_forbidden_a_fallback_is_no_problem(tmp_path: Path, script: Script) -> None:
    path = script("import os\nopen(os.environ.get('SM_MODEL_DIR', '/opt/ml/model') + '/m', 'w').write('m')\n")
    command = [*become("forbidden"), sys.executable, "-c", RUN, str(tmp_path / "store"), path, "{}"]
    subprocess.run(command, check=True)
    assert (tmp_path / "store/jobs/theirs/output/model.tar.gz").is_file()


def test_other_systems_and_a_store_in_opt_ml(
    runner: JobRunner, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the store lies in" in why_no_private_mount(tmp_path / "job", str(tmp_path))
    monkeypatch.setattr(launching.sys, "platform", "darwin")
    with pytest.raises(JobError, match="only Linux can give a process mounts of its own"):
        runner.run(script("open('/opt/ml/model/m', 'w')"))
    assert runner.jobs() == []


def test_sagemakers_packages_find_it_without_a_mention(tmp_path: Path, script: Script) -> None:
    backend = LocalBackend(tmp_path / "jobs", "1.2-1[toolkits]")
    spec = JobRunner(Settings(root=str(tmp_path))).spec(script("pass"))
    try:
        assert backend.prepare(spec).record["request"]["mounted_at"] == "/opt/ml"
    except ParityEnvironmentError as error:
        pytest.skip(str(error))


# --- every shape of the machine's folder ------------------------------------------------------------------------

LOOK = """
import json, os, sys
target, other = sys.argv[1:]
found = {
    "target": sorted(os.listdir(target)),
    "cwd": os.getcwd(),
    "other": {
        name: os.readlink(os.path.join(other, name)) if os.path.islink(os.path.join(other, name))
        else sorted(os.listdir(os.path.join(other, name))) if os.path.isdir(os.path.join(other, name))
        else os.stat(os.path.join(other, name)).st_size
        for name in os.listdir(other) if name != "ml"
    },
}
open(os.path.join(target, "written"), "w").close()
print(json.dumps(found))
"""


def mounted(
    folder: Path, target: Path | str, *command: str, user: str = "this user", read_only: Path | str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command with a folder mounted; what is reported comes first in `stderr`."""
    read_end, write_end = os.pipe()
    script = [sys.executable, "-I", "-S", opt_ml.__file__, str(folder), str(target), str(read_only), str(write_end)]
    with os.fdopen(read_end, encoding="utf-8") as report:
        try:
            result = subprocess.run(
                [*become(user), *script, *command], cwd=folder.parent, capture_output=True, text=True, check=False,
                pass_fds=(write_end,),
            )  # fmt: skip
        finally:
            os.close(write_end)
        result.stderr = report.read() + result.stderr
    return result


def look(folder: Path, target: Path | str, other: Path | str, user: str) -> dict[str, Any]:
    result = mounted(folder, target, sys.executable, "-I", "-S", "-c", LOOK, str(target), str(other), user=user)
    assert result.returncode == 0, result.stderr
    assert (folder / "written").exists()
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["target"] == ["marker"]
    assert found["cwd"] == str(folder.parent)
    return found


def everything(folder: Path) -> list[tuple[str, int, str]]:
    paths = sorted(folder.rglob("*"))
    return [(str(path), path.lstat().st_mode, str(path.readlink()) if path.is_symlink() else "") for path in paths]


@pytest.fixture
def opt(tmp_path: Path) -> Path:
    """A folder like /opt, with one of everything."""
    opt = tmp_path / "machine/opt"
    (opt / "conda/bin").mkdir(parents=True)
    (opt / "conda/bin/conda").write_text("x")
    (opt / "file").write_text("12345")
    (opt / "link").symlink_to("conda/bin")
    (opt / "dangling").symlink_to("/nowhere/at/all")
    with socket.socket(socket.AF_UNIX) as server:
        # By a short path: a socket's has a limit.
        here = Path.cwd()
        os.chdir(opt)
        server.bind("socket")
        os.chdir(here)
    return opt


OTHERS = {"conda": ["bin"], "file": 5, "link": "conda/bin", "dangling": "/nowhere/at/all", "socket": 0}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("shape", ["missing", "folder", "file", "link", "dangling link", "no parent"])
def test_every_shape_of_opt_is_seen_whole_and_left_alone(tmp_path: Path, opt: Path, shape: str, user: str) -> None:
    folder, target = tmp_path / "base", opt / "ml"
    folder.mkdir()
    (folder / "marker").touch()
    if shape == "folder":
        (target / "its own").mkdir(parents=True)
    elif shape == "file":
        target.write_text("no folder")
    elif shape == "link":
        (tmp_path / "machine/elsewhere").mkdir()
        target.symlink_to(tmp_path / "machine/elsewhere")
    elif shape == "dangling link":
        target.symlink_to("../gone/ml")
    elif shape == "no parent":
        target = opt / "not" / "there" / "ml"
    before, mounts = everything(tmp_path / "machine"), outside()
    found = look(folder, target, opt, user)
    expected = OTHERS | ({"not": ["there"]} if shape == "no parent" else {})
    assert found["other"] == expected
    assert everything(tmp_path / "machine") == before
    assert outside() == mounts


@pytest.mark.parametrize("user", USERS)
def test_a_machine_without_opt(tmp_path: Path, user: str) -> None:
    folder, name = tmp_path / "base", f"smkit-test-{uuid.uuid4().hex}"
    folder.mkdir()
    (folder / "marker").touch()
    mounts, root = outside(), sorted(entry.name for entry in Path("/").iterdir())
    found = look(folder, f"/{name}/ml", "/", user)
    assert set(found["other"]) - {name} == set(root)
    assert found["other"][name] == ["ml"]
    assert (outside(), sorted(entry.name for entry in Path("/").iterdir())) == (mounts, root)


@pytest.mark.parametrize("user", USERS)
def test_what_is_mounted_inside_opt_is_seen_too(tmp_path: Path, opt: Path, user: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/on the disk").touch()
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "marker").touch()
    inner = [sys.executable, "-I", "-S", opt_ml.__file__, str(folder), str(opt / "ml"), "", "2"]
    show = [sys.executable, "-I", "-S", "-c", LOOK, str(opt / "ml"), str(opt)]
    result = mounted(tmp_path / "disk", opt / "conda/bin", *inner, *show, user=user)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["other"] == OTHERS
    listed = mounted(tmp_path / "disk", opt / "conda/bin", *inner, "ls", str(opt / "link"), user=user)
    assert listed.stdout == "on the disk\n"


WRITE = """
import os, sys
folder = sys.argv[1]
for attempt in (
    lambda: open(os.path.join(folder, "bin/conda"), "a"),
    lambda: os.chmod(os.path.join(folder, "bin/conda"), 0o666),
    lambda: os.unlink(os.path.join(folder, "bin/conda")),
    lambda: os.rename(os.path.join(folder, "bin"), os.path.join(folder, "gone")),
    lambda: os.mkdir(os.path.join(folder, "more")),
):
    try:
        attempt()
    except OSError as error:
        print(error.strerror)
print(open(os.path.join(folder, "bin/conda")).read())
open(os.path.join(os.path.dirname(folder), "elsewhere"), "w").close()
"""


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("shape", ["missing", "folder"])
def test_nobody_writes_into_the_read_only_folder(tmp_path: Path, opt: Path, shape: str, user: str) -> None:
    folder, protected = tmp_path / "base", opt / "conda"
    folder.mkdir()
    if shape == "folder":
        (opt / "ml").mkdir()
    before, mounts = everything(tmp_path / "machine"), outside()
    command = [sys.executable, "-I", "-S", "-c", WRITE]
    # By a link: what is protected is the folder, not a name of it.
    (tmp_path / "link").symlink_to(protected)
    result = mounted(folder, opt / "ml", *command, str(protected), user=user, read_only=tmp_path / "link")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["Read-only file system"] * 5 + ["x"]
    if shape == "folder":
        (opt / "elsewhere").unlink()
    assert everything(tmp_path / "machine") == before
    assert outside() == mounts
    unprotected = mounted(folder, opt / "ml", *command, str(protected), user=user)
    assert "Read-only file system" not in unprotected.stdout


def test_the_command_is_the_same_process_with_the_usual_signals(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    result = mounted(
        folder, tmp_path / "opt/ml", "sh", "-c", "echo $PPID; grep SigIgn /proc/self/status; ls /proc/self/fd"
    )
    parent, ignored, *descriptors = result.stdout.split("\n")
    assert int(parent) == os.getpid()
    assert int(ignored.split()[1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0
    assert [number for number in descriptors if number] == ["0", "1", "2", "3"]  # 3: ls itself


def test_what_goes_wrong_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    missing = mounted(folder, tmp_path / "opt/ml", "/no/such/program")
    assert (missing.returncode, missing.stderr) == (126, "No such file or directory")
    inside = mounted(folder, tmp_path, "true")
    assert inside.returncode == 126
    assert "lies in" in inside.stderr


# --- what counts as naming it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open('/opt/ml/model/m')", [(1, "/opt/ml/model/m", False)]),
        ("x = 1\nprefix = '/opt/ml/'", [(2, "/opt/ml", False)]),
        ("f'/opt/ml/input/data/{name}/a.csv'", [(1, "/opt/ml/input/data", False)]),
        ("os.path.join('/opt', 'ml', 'model', name)", [(1, "/opt/ml/model", False)]),
        ("Path('/opt') / 'ml' / 'model'", [(1, "/opt/ml", False)]),
        ("b = 'file:///opt/ml/model'", [(1, "/opt/ml/model", False)]),
        ("p.add_argument('--m', default='/opt/ml/model')", [(1, "/opt/ml/model", False)]),
        ("add('--m', default=os.environ.get('SM_MODEL_DIR', '/opt/ml/model'))", [(1, "/opt/ml/model", True)]),
        ("os.getenv('SM_MODEL_DIR', default='/opt/ml/model')", [(1, "/opt/ml/model", True)]),
        ("os.environ.get('SM_MODEL_DIR') or '/opt/ml/model'", [(1, "/opt/ml/model", True)]),
        ("os.environ.get('MY_DIR', '/opt/ml/model')", [(1, "/opt/ml/model", False)]),
        ("'''On AWS: /opt/ml/model'''\n# /opt/ml/model\ndef f():\n    '''/opt/ml'''", []),
        ("'/opt/mlflow', '/opt/ml2', 's3://b/opt/ml/m', '/opt/ml/processing/input', '/opt'", []),
        ("print '/opt/ml/model'  # Python 2\n# /opt/ml", [(1, "/opt/ml/model", False)]),
    ],
)  # fmt: skip
def test_mentions_in_python(code: str, found: list[tuple[int, str, bool]]) -> None:
    files = {"a.py": StagedFile(code.encode(), executable=False)}
    assert find_mentions(files) == [Mention("a.py", *one) for one in found]


def test_mentions_in_other_files() -> None:
    line = b"# /opt/ml/code\nx: /opt/ml/model # why\n"
    names = ["go.sh", "conf/a.yaml", "requirements.txt", "a.json", "README.md", "a.bin", "smkit/entrypoint/x.py"]
    files = {name: StagedFile(line, executable=False) for name in names}
    assert [(mention.file, mention.line) for mention in find_mentions(files)] == [
        ("go.sh", 2), ("conf/a.yaml", 2), ("requirements.txt", 2), ("a.json", 1), ("a.json", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/opt/ml/model/m.joblib", 'os.environ["SM_MODEL_DIR"]'),
        ("/opt/ml", 'os.environ["SM_MODEL_DIR"]'),
        ("/opt/ml/input/data/test-data/a.csv", 'os.environ["SM_CHANNEL_TEST-DATA"]'),
        ("/opt/ml/input/data", 'os.environ["SM_INPUT_DIR"]'),
        ("/opt/ml/input/config/hyperparameters.json", 'os.environ["SM_INPUT_CONFIG_DIR"]'),
        ("/opt/ml/output/data", 'os.environ["SM_OUTPUT_DATA_DIR"]'),
        ("/opt/ml/output/failure", 'os.environ["SM_OUTPUT_DIR"]'),
        ("/opt/ml/code/conf.json", "os.path.dirname(os.path.abspath(__file__))"),
    ],
)
def test_what_to_write_instead(path: str, code: str) -> None:
    assert Mention("a.py", 1, path).replacement == code
