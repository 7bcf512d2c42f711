"""What the container says of itself is folded, and nothing of the script's own words is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smkit.jobs.folding import ContainerFold

HEAD = "2026-11-23 08:31:32,388 sagemaker-training-toolkit INFO     Invoking user script\n"
RECORD = (
    " \nTraining Env:\n \n{\n    \"hosts\": [\n        \"algo-1\"\n    ]\n}\n \nEnvironment variables:\n \n"
    "SM_HOSTS=[\"algo-1\"]\nSM_HP_NOTE=two\nlines\n \n"
)  # fmt: skip
COMMAND = "Invoking script with the following command:\n \n/miniconda3/bin/python train.py --alpha 0.5\n \n"
NOTE = f"[{RECORD.count(chr(10))} lines about the container are left out here; job.logs() has them]\n"


def folded(*pieces: str) -> str:
    fold = ContainerFold()
    return "".join([*map(fold.feed, pieces), fold.close()])


def test_the_record_becomes_one_line() -> None:
    log = f"before\n{HEAD}{RECORD}{COMMAND}rmse=0.5\n"
    assert folded(log) == f"before\n{HEAD}{NOTE}{COMMAND}rmse=0.5\n"
    # A spot job that starts anew says it again.
    assert folded(log, log) == f"before\n{HEAD}{NOTE}{COMMAND}rmse=0.5\n" * 2


@given(st.data())
def test_the_pieces_do_not_matter(data: st.DataObject) -> None:
    log = f"before\r10%\r20%\n{HEAD}{RECORD}{COMMAND}\x0b rmse\u2028=0.5\nhalf a line"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=8)))
    pieces = [log[start:end] for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    assert folded(*pieces) == folded(log)


@given(st.lists(st.sampled_from([HEAD, " \n", "Training Env:\n", COMMAND, "x\n", "half"]), max_size=8))
def test_what_has_no_end_or_another_form_is_shown(pieces: list[str]) -> None:
    log = "".join(pieces)
    if HEAD not in log or "Training Env:\n" not in log or COMMAND.partition("\n")[0] not in log:
        assert folded(log) == log


def test_a_script_that_prints_such_lines_itself_is_shown() -> None:
    own = f"Training Env:\n{{}}\n{COMMAND}"
    assert folded(own) == own
    assert folded(HEAD, "the script\n", own) == f"{HEAD}the script\n{own}"


def test_what_is_too_long_to_be_the_environment_is_shown_as_it_comes() -> None:
    fold = ContainerFold()
    long = "x" * 1000 + "\n"
    shown = fold.feed(HEAD + "\nTraining Env:\n") + "".join(fold.feed(long) for _ in range(2000))
    assert shown == HEAD + "\nTraining Env:\n" + long * 2000


def test_a_line_in_progress_is_shown_at_once() -> None:
    fold = ContainerFold()
    assert fold.feed("10% ") == "10% "
    assert fold.feed("20%\n") == "20%\n"
