"""Compiles an environment to bytecode, in a process that outlives its parent. Run as a script; standard library only.

    PYTHON -I -S compile_folder.py FOLDER

PYTHON is the environment's own, for which the bytecode is: Python 3.7 or later. It returns at once; what it leaves
behind compiles, then takes from everybody the right to write into the environment's folders, and at last writes the
file `COMPILED`. Where that is missing, the process was killed, and another one does what is left.
"""

import compileall
import os
import re
import stat
import sys

#: Begins as all that is no part of an environment's content.
COMPILED = "smkit-compiled"
#: How far others, such as the first job, go before.
_NICENESS = 5


def compile_folder(folder: str) -> None:
    """Compile all modules of an environment, then protect its folders."""
    library = os.path.join(folder, "lib")  # noqa: PTH118 - text, as compileall takes it
    # Packages' own tests, almost half of all modules, are not imported by jobs.
    tests = re.compile(re.escape(library) + ".*/tests/")
    # What does not compile, such as a template of code, is not imported either. One process: workers would outlive it
    # where it is killed, with the lock that it inherited.
    compileall.compile_dir(library, quiet=2, rx=tests)
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - thousands of folders
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode) & ~0o222)  # noqa: PTH101 - as above
    with open(os.path.join(folder, COMPILED), "w", encoding="ascii"):  # noqa: PTH118, PTH123 - as above
        pass


if __name__ == "__main__":
    # Whoever started this waits for its end, and not for that of the child.
    if os.fork() == 0:
        os.nice(_NICENESS)
        compile_folder(sys.argv[1])
