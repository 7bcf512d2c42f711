"""Every error that smkit raises on purpose.

Each is a `SmkitError` and also the standard library's error for its kind (`ConfigError` is a `ValueError`), so that
generic callers can handle it. A message states the value, what is allowed and how to fix it; it never holds a secret.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class SmkitError(Exception):
    """The root of every error that smkit raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """Show in a notebook where the user's own code was, without the library's frames; IPython asks for it."""
        from smkit.display import short_traceback

        return short_traceback(self)

    def __reduce__(self) -> Any:
        """Survive the way back from a worker process: an exception is pickled by its message alone otherwise."""
        return (_restored, (type(self), self.args, self.__dict__)) if self.__dict__ else super().__reduce__()


def _restored(cls: type[SmkitError], args: tuple[Any, ...], attributes: dict[str, Any]) -> SmkitError:
    # __base__, not the first in the MRO, decides the layout: OSError's objects are larger than RuntimeError's.
    error: SmkitError = (cls.__base__ or cls).__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ConfigError(SmkitError, ValueError):
    """A setting or an argument is missing, malformed or contradicts another."""


class InvalidNameError(ConfigError):
    """A dataset, model, alias or job name breaks the naming rule."""


class MissingExtraError(SmkitError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it."""


# --- sources ----------------------------------------------------------------------------------------------------


class SourceError(SmkitError):
    """Data could not be read."""


class SourceNotFound(SourceError, FileNotFoundError):
    """No file or object matches."""


class SourceFormatError(SourceError, ValueError):
    """A file is not what its format says, or files of one source do not share a schema."""


class SourceConnectionError(SourceError, ConnectionError):
    """The server cannot be reached, refused the connection, or dropped it."""


class QueryError(SourceError, ValueError):
    """The database rejected the query.

    Attributes:
        sqlstate: The server's five-character error code (PostgreSQL, Appendix A), or None.
        position: The 1-based character of the query at which the server noticed the error, or None.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None, position: int | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.position = position


# --- datasets ---------------------------------------------------------------------------------------------------


class WideDecimalWarning(UserWarning):
    """A column has decimals of more than 38 digits: the oldest training image cannot read any column beside it."""


class DatasetError(SmkitError, ValueError):
    """A dataset could not be built."""


class EmptyResultError(DatasetError):
    """The source, or a step, left no rows."""


class EmptySplitError(DatasetError):
    """A split would get no rows."""


class MissingColumnError(DatasetError, KeyError):
    """A step names a column that the rows do not have."""

    # KeyError's own __str__ is the repr of its argument.
    __str__ = Exception.__str__


class TransformError(DatasetError):
    """A transform raised, or returned something that is not a frame.

    Attributes:
        step: The transform's name.
        batch: 0-based number of the batch.
        rows: First and last 0-based row of the batch, as the step before passed them on.
    """

    def __init__(self, message: str, *, step: str, batch: int, rows: tuple[int, int]) -> None:
        super().__init__(message)
        self.step = step
        self.batch = batch
        self.rows = rows


class SchemaViolationError(DatasetError):
    """Rows break the schema; all violations of the whole dataset are listed at once.

    Attributes:
        violations: What was broken, where, how often, with sample rows.
    """

    def __init__(self, message: str, violations: Sequence[Any]) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


# --- storage and versions ---------------------------------------------------------------------------------------


class StorageError(SmkitError, OSError):
    """The object store failed: unreachable, denied, or out of space."""


class ObjectNotFound(StorageError, FileNotFoundError):
    """No object has this key."""


class StoreUnreachable(StorageError, ConnectionError):
    """The object store did not answer: no network, no such host, a refused or dropped connection."""


class OfflineWarning(UserWarning):
    """The store cannot be reached, and a version that was read from it before is used."""


class IntegrityError(SmkitError, ValueError):
    """Stored bytes are not the bytes that were published."""


class VersionNotFound(SmkitError, LookupError):
    """No such name, version or alias."""


class VersionInUse(SmkitError, ValueError):
    """The version cannot be pruned: an alias names it."""


class AliasConflict(SmkitError):
    """Somebody else moved the alias first.

    Attributes:
        alias: The alias.
        expected: The version that the caller saw, or None where it saw none.
        actual: The version that the alias names now, or None.
    """

    def __init__(self, message: str, *, alias: str, expected: int | None, actual: int | None) -> None:
        super().__init__(message)
        self.alias = alias
        self.expected = expected
        self.actual = actual


# --- jobs -------------------------------------------------------------------------------------------------------


class JobError(SmkitError):
    """A job could not be prepared, submitted or read."""


class JobNotFound(JobError, LookupError):
    """No job has this name."""


class DuplicateJobError(JobError, ValueError):
    """The job name is taken; names are never reused."""


class ParityEnvironmentError(JobError, OSError):
    """An image's Python and packages cannot be had on this machine: no such Python, or they could not be installed."""


class JobRefused(JobError, ValueError):
    """A check before the start found something that would make the job fail; nothing was sent or paid for.

    Attributes:
        problems: What is wrong, each with its fix.
    """

    def __init__(self, message: str, problems: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class JobCheckWarning(UserWarning):
    """A check before the start found something that may be wrong; the job was started all the same."""


class ServiceError(JobError):
    """An AWS service refused a call about a job, or failed.

    Attributes:
        code: The service's error code, or "" where it was not reached.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class CredentialsError(ServiceError, PermissionError):
    """There are no credentials, they have expired, or they are of another partition."""


class AccessDenied(ServiceError, PermissionError):
    """The caller, or the execution role, may not do this."""


class QuotaExceeded(ServiceError):
    """The account's quota for the instance, or for jobs, is used up."""


class UnsupportedInRegion(ServiceError):
    """The region does not know a field of the request, or does not offer the instance or the image."""


class ServiceUnavailable(ServiceError, ConnectionError):
    """The service did not answer, or asked to slow down, however often it was tried."""


class JobLogWarning(UserWarning):
    """The log of a job cannot be read; the job is waited for all the same."""


class WaitTimeout(JobError, TimeoutError):
    """The job is not over after the seconds that the caller was ready to wait; the job itself goes on."""


class TrainingFailed(JobError, RuntimeError):
    """The training script failed.

    Attributes:
        job_name: The job.
        exit_code: The script's exit code; negative for the signal that killed it; None where it never ran.
        traceback: The script's own traceback, or "" where it left none.
        log_path: Where the whole log lies.
    """

    def __init__(self, message: str, *, job_name: str, exit_code: int | None, traceback: str, log_path: str) -> None:
        super().__init__(message)
        self.job_name = job_name
        self.exit_code = exit_code
        self.traceback = traceback
        self.log_path = log_path


class TrainingTimeout(TrainingFailed, TimeoutError):
    """The script ran longer than its timeout and was stopped."""


class TrainingStopped(TrainingFailed):
    """The job was stopped before it ended."""


# --- models -----------------------------------------------------------------------------------------------------


class ModelError(SmkitError, ValueError):
    """A model could not be published or loaded."""


class PickleNotAllowed(ModelError):
    """Loading would unpickle, which runs code from the file, and the caller did not allow it."""


class UntrustedTypes(ModelError):
    """A skops file holds types that neither skops nor the caller trusts.

    Attributes:
        types: Their full names.
    """

    def __init__(self, message: str, *, types: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.types = types


class EnvironmentMismatch(ModelError):
    """Other versions of Python or scikit-learn trained the model: it cannot, or with `strict` must not, be loaded."""


class SameContentWarning(UserWarning):
    """A version that holds the same files was returned, and what else was given was not published."""


class EnvironmentMismatchWarning(UserWarning):
    """The model was trained under other versions of Python or scikit-learn than those that load it."""


# --- the doctor -------------------------------------------------------------------------------------------------


class ProblemsFound(SmkitError, RuntimeError):
    """The doctor found problems.

    Attributes:
        problems: What was found, each with its fix.
    """

    def __init__(self, message: str, problems: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


# --- projects ---------------------------------------------------------------------------------------------------


class ProjectError(SmkitError, OSError):
    """The files of a new project cannot be written: others are there already, or the folder is none or read-only."""


# --- infrastructure ---------------------------------------------------------------------------------------------


class InfraError(SmkitError):
    """A stack of CloudFormation could not be planned, deployed or deleted."""


class BucketTaken(InfraError, FileExistsError):
    """The bucket that a stack would make exists already, here or in somebody else's account."""


class StackNotFound(InfraError, LookupError):
    """There is no such stack."""


class StackStateError(InfraError, ValueError):
    """The stack is in a state in which CloudFormation takes no change; the message says how to leave it.

    Attributes:
        stack: The stack's name.
        status: Its status, in CloudFormation's words.
    """

    def __init__(self, message: str, *, stack: str = "", status: str = "") -> None:
        super().__init__(message)
        self.stack = stack
        self.status = status


class StackFailed(InfraError, RuntimeError):
    """CloudFormation could not carry out a change.

    Attributes:
        stack: The stack's name.
        status: Its status afterwards, in CloudFormation's words.
        reasons: What failed first, each as `<logical id>: <reason>`.
    """

    def __init__(self, message: str, *, stack: str = "", status: str = "", reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.stack = stack
        self.status = status
        self.reasons = tuple(reasons)


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest allowed value, or `""` where none is near."""
    near = difflib.get_close_matches(value, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
