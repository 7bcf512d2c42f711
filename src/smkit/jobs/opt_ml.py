"""Shows a command the job's folder at `/opt/ml`, as in the container. Run as a script; standard library only; Linux.

    python -I -S opt_ml.py FOLDER TARGET READ_ONLY REPORT_FD [COMMAND...]

Enters a mount namespace of its own, mounts FOLDER on TARGET there, lets nobody write into the folder READ_ONLY ("" for
none), and becomes COMMAND: same process, same user, same working folder. Without COMMAND it ends with 0, which tells
that all of this is possible. What goes wrong before COMMAND runs is written to REPORT_FD, and the exit code is 126.

Nothing of it is seen outside, and nothing stays: the namespace ends with the last process in it. Root needs no more;
for everybody else the mount namespace lies in a user namespace that maps the user to itself, so that the command has no
further rights, but cannot use `sudo`, and sees the files of other users as `nobody`'s.

Where TARGET does not exist, the nearest folder above it that does is covered by one in memory, which holds all that the
real one does, mounted, and TARGET. Where that is `/`, the new one becomes the root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 1, 1 << 5, 1 << 12, 1 << 14, 1 << 19
#: What a mount may have, and who mounts it again has to name so that it stays: ST_* of statvfs(3) -> mount(2).
_KEPT_FLAGS = {
    "ST_NOSUID": 1 << 1,
    "ST_NODEV": 1 << 2,
    "ST_NOEXEC": 1 << 3,
    "ST_NOATIME": 1 << 10,
    "ST_NODIRATIME": 1 << 11,
    "ST_RELATIME": 1 << 21,
}
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_FAILED = 126
_OLD_ROOT = ".smkit-old-root"


class _Linux:
    """The calls of libc that Python has no name for."""

    def __init__(self) -> None:
        # Some Pythons are built without it.
        import ctypes

        self._ctypes = ctypes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _call(self, what: str, name: str, *arguments: Any) -> None:
        if getattr(self._libc, name)(*arguments) != 0:
            number = self._ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")

    def unshare(self, flags: int) -> None:
        kind = "a user and a mount namespace" if flags & _CLONE_NEWUSER else "a mount namespace"
        self._call(f"the kernel does not grant {kind}", "unshare", flags)

    def mount(self, source: str, target: str, kind: str, flags: int, options: str = "") -> None:
        arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), self._ctypes.c_ulong(flags))
        self._call(f"cannot mount on {target}", "mount", *arguments, options.encode() or None)

    def pivot_root(self, new: str, old: str) -> None:
        self._call("cannot change the root folder", "pivot_root", os.fsencode(new), os.fsencode(old))

    def detach(self, target: str) -> None:
        self._call(f"cannot unmount {target}", "umount2", os.fsencode(target), _MNT_DETACH)

    def die_with_parent(self) -> None:
        self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def enter(folder: str, target: str, read_only: str) -> None:
    """Enter a namespace in which `folder` is mounted on `target` and `read_only`, a folder or "", is so.

    Raises:
        OSError: The kernel does not allow it, or `folder` lies inside `target`.
    """
    linux = _Linux()
    working_folder = os.getcwd()  # noqa: PTH109 - a text, as every path here
    target = os.path.realpath(target)
    if Path(os.path.realpath(folder)).is_relative_to(target):
        raise OSError(errno.ELOOP, f"the job's folder {folder} lies in {target} itself: use a store elsewhere (root)")
    _unshare(linux)
    if read_only:
        _protect(linux, os.path.realpath(read_only))
    # A name for the folder that stays right whatever covers its path.
    source = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    old_root = _make_mount_point(linux, target, folder)
    linux.mount(f"/proc/self/fd/{source}", target, "", _MS_BIND | _MS_REC)
    os.close(source)
    if old_root:
        linux.detach(old_root)
        os.rmdir(old_root)  # noqa: PTH106 - a text, as every path here
    # By its path again: the folder may lie under what was covered.
    os.chdir(working_folder)


def _unshare(linux: _Linux) -> None:
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        # In a container root often lacks the right, yet may make a user namespace.
        with contextlib.suppress(PermissionError):
            linux.unshare(_CLONE_NEWNS)
            _leave_no_trace(linux)
            return
    linux.unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
    process = Path("/proc/self")
    (process / "setgroups").write_text("deny", encoding="ascii")
    (process / "uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    (process / "gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _leave_no_trace(linux)


def _leave_no_trace(linux: _Linux) -> None:
    # A slave: what is mounted here stays here; what is mounted and unmounted outside happens here too.
    linux.mount("none", "/", "", _MS_REC | _MS_SLAVE)


def _protect(linux: _Linux, folder: str) -> None:
    linux.mount(folder, folder, "", _MS_BIND | _MS_REC)
    has = os.statvfs(folder).f_flag
    kept = sum(flag for name, flag in _KEPT_FLAGS.items() if has & getattr(os, name))
    linux.mount("none", folder, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def _make_mount_point(linux: _Linux, target: str, spare: str) -> str:
    """Make the folder `target` unless it is there; return a mount that is to be detached at last, or "".

    Args:
        linux: The calls.
        target: A path without links.
        spare: Any folder, to build a new root on.
    """
    path = Path(target)
    if path.is_dir():
        return ""
    above = next(folder for folder in path.parents if folder.is_dir())
    options = f"mode={stat.S_IMODE(above.stat().st_mode):o}"
    hidden = path.relative_to(above).parts[0]
    old_root = ""
    if str(above) == "/":
        linux.mount("smkit", spare, "tmpfs", 0, options)
        old = f"{spare}/{_OLD_ROOT}"
        os.mkdir(old)  # noqa: PTH102 - a text, as every path here
        linux.pivot_root(spare, old)
        os.chdir("/")
        old_root = real = f"/{_OLD_ROOT}"
        _mount_all(linux, real, "/", hidden)
    else:
        # Through the descriptor what is covered can still be reached.
        descriptor = os.open(above, os.O_PATH | os.O_DIRECTORY)
        names = os.fspath(above)
        linux.mount("smkit", names, "tmpfs", 0, options)
        _mount_all(linux, f"/proc/self/fd/{descriptor}", names, hidden)
        os.close(descriptor)
    path.mkdir(parents=True)
    return old_root


def _mount_all(linux: _Linux, real: str, folder: str, hidden: str) -> None:
    """Mount everything of a real folder into an empty one, except for what has the name `hidden`."""
    with os.scandir(f"{real}/.") as listing:
        entries = [entry for entry in listing if entry.name != hidden]
    for entry in entries:
        source, target = f"{real}/{entry.name}", Path(folder, entry.name)
        if entry.is_symlink():
            target.symlink_to(os.readlink(source))  # noqa: PTH115 - a text, as every path here
            continue
        if entry.is_dir(follow_symlinks=False):
            target.mkdir()
        else:
            target.touch()
        linux.mount(source, str(target), "", _MS_BIND | _MS_REC)


def main() -> None:
    """Run the command that the command line names."""
    folder, target, read_only, report, *command = sys.argv[1:]
    os.set_inheritable(int(report), False)
    parent = os.getppid()
    try:
        enter(folder, target, read_only)
        if not command:
            return
        # The kernel may forget it when the rights of the process change.
        _Linux().die_with_parent()
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        # Python ignores these, and what is ignored stays so across an exec.
        for name in ("SIGPIPE", "SIGXFSZ"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 - the job's own command, as a list
    except (OSError, ImportError, AttributeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if isinstance(error, OSError) and error.filename:
            reason = f"{error.filename}: {reason}"
        os.write(int(report), reason.encode("utf-8", "replace")[:4096])
        sys.exit(_FAILED)


if __name__ == "__main__":
    main()
