"""JobId: the id of a job, to a type checker together with the type of what the job returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

__all__ = ["JobId"]

Returned = TypeVar("Returned", covariant=True)

if TYPE_CHECKING:

    class JobId(str, Generic[Returned]):
        """What `push` returns: a `str`. `queue.result` and `queue.wait_for` give the type that it carries."""

else:  # a subclass of str is refused by encoders of JSON that look at the very type, msgspec's among them

    class JobId:
        """What `push` returns: a `str`, at run time nothing else."""

        def __class_getitem__(cls, _returned: object) -> type[str]:
            return str
