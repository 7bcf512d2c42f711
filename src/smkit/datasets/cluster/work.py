"""Tasks on a cluster, for one build."""

from __future__ import annotations

import uuid
import weakref
from typing import TYPE_CHECKING, Any

from smkit.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from distributed import Client, Future


class Work:
    """Submits tasks; what is not done when the context is left is given up.

    Args:
        client: The cluster.

    Raises:
        ConfigError: Dask is not installed, or it is no client that can be waited for.
    """

    def __init__(self, client: Client) -> None:
        try:
            import distributed
        except ImportError:
            raise ConfigError("build(client=...) needs Dask: pip install 'smkit[dask]'") from None
        if not isinstance(client, distributed.Client):
            kind = type(client).__name__
            raise ConfigError(f"client={kind}: expected a distributed.Client, such as Client('tcp://scheduler:8786')")
        if client.asynchronous:
            raise ConfigError("build() waits for the cluster: make the client without asynchronous=True")
        if client.status != "running":
            raise ConfigError(f"the client is {client.status}: connect a new one, as in distributed.Client(address)")
        self._client = client
        self._lost = (distributed.KilledWorker, distributed.CancelledError)
        # Weakly: a worker forgets a result when nobody here refers to it.
        self._futures: weakref.WeakSet[Future[Any]] = weakref.WeakSet()

    def __enter__(self) -> Work:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not Client.cancel, which fails in the scheduler for a task whose inputs were released before: nobody wants
        # them any more, and that ends what waits as well.
        for future in list(self._futures):
            future.release()

    def submit(self, task: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
        """Start a task; futures among the arguments are its inputs."""
        # Not named by its arguments: a second build must read files anew.
        key = f"smkit-{task.__name__}-{uuid.uuid4().hex}"
        future = self._client.submit(task, *arguments, **options, key=key, pure=False)
        self._futures.add(future)
        return future

    def result(self, future: Future[Any]) -> Any:
        """Wait for a task.

        Raises:
            SmkitError: What the task raised.
            DatasetError: Workers died while they ran it, or the cluster has gone.
        """
        try:
            return future.result()
        except self._lost as error:
            raise DatasetError(
                f"the cluster gave up: {error}. Workers that die again and again mostly lack memory: give them more, "
                f"or divide the source into smaller files"
            ) from error
