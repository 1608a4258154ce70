"""What Prefect may store of an error: it keeps the text of every run that failed, and shows it to all who have its password."""

import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from prefect.exceptions import PrefectException

from lmeraser.core.errors import LmeraserError, StepFailedError
from lmeraser.core.redaction import storable

P = ParamSpec("P")
R = TypeVar("R")


def without_words(error: LmeraserError) -> StepFailedError:
    """An error as Prefect may store it: without what led to it, and without words that may be a path of somebody's."""
    return StepFailedError(storable(str(error)), error.exit_code)


def storable_errors(function: Callable[P, R]) -> Callable[P, R]:
    """A flow's function whose errors Prefect may store. Every flow is one (`tests/unit/test_storable_errors.py`)."""

    @wraps(function)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return function(*arguments, **options)
        except LmeraserError as error:
            raise without_words(error) from None
        except PrefectException:
            raise
        except Exception as error:  # its text may hold a path or more: it stays in the worker's log
            traceback.print_exc()
            raise StepFailedError(
                f"the run ended with an unexpected {type(error).__name__}; the worker's log shows where"
            ) from None

    return wrapped
