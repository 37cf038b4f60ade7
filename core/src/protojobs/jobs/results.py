"""What a job returns, as the JSON text that is kept with it, and back."""

from __future__ import annotations

from protojobs.errors import PayloadError, ResultInvalid, one_line
from protojobs.interrupts import Interrupted
from protojobs.jobs import codec
from protojobs.jobs.definition import JobDefinition
from protojobs.port.results import RESULT_BYTES_MAX

__all__ = ["result_of", "result_text"]


def result_text(result: object, definition: JobDefinition) -> str:
    """By the return annotation. Raises ResultInvalid for what would not come back as it is, or is too large."""
    what = f'the result of job "{definition.name}"'
    try:
        return codec.encode(result, definition.result_type, what=what, bytes_max=RESULT_BYTES_MAX)
    except Interrupted:
        raise
    except PayloadError as error:
        raise ResultInvalid(
            error.message, mend="Return plain data, or say by the return annotation what it is: `-> Summary`."
        ) from error
    except BaseException as error:  # the type of the result may have code of its own
        raise ResultInvalid(f"{what} cannot be written as JSON: {one_line(str(error))}.") from error


def result_of(text: str, definition: JobDefinition | None) -> object:
    """The value again, by the return annotation of the job, where this process knows it.

    Raises PayloadNotDecodable when the text is not (or no longer) that.
    """
    if definition is None:
        return codec.decode(text, None, what="the result")
    return codec.decode(text, definition.result_type, what=f'the result of job "{definition.name}"')
