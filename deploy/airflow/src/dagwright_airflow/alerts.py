"""Telling people of runs that went wrong, through the connections of Airflow that a spec names.

`DagwrightNotifier` is called where Airflow handles the end of a run that failed: in the DAG processor.
`deadline_missed` is called by the triggerer of 3.1 and later once a deadline has passed. Whatever goes wrong in either
is logged, and harms neither the run nor what another connection is told.

Small, as each DAG file with alerts imports it: what is told stands in `notice`, and how in `channels`.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dagwright_airflow.compat import BaseNotifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What Airflow calls the end of a run at `dagrun_timeout`.
REASON_TIMED_OUT = "timed_out"

_log = logging.getLogger(__name__)


def knows_deadlines() -> bool:
    """Tell whether this Airflow has deadlines; 3.1 was the first."""
    try:
        return find_spec("airflow.sdk.definitions.deadline") is not None
    except ModuleNotFoundError:
        # 2.11 has no `airflow.sdk`.
        return False


class DagwrightNotifier(BaseNotifier):
    """Tells connections of runs that failed.

    An Airflow without deadlines ends runs that take too long, and notices them by nothing else: there, those who wait
    for deadlines are told then.

    :param on_failure: the connections told of each run that failed.
    :param on_deadline: the connections told of each run that missed its deadline.
    """

    template_fields: Sequence[str] = ()

    def __init__(self, *, on_failure: Sequence[str] = (), on_deadline: Sequence[str] = ()) -> None:
        super().__init__()
        self.on_failure = list(on_failure)
        self.on_deadline = list(on_deadline)

    def __call__(self, *args: Any) -> None:
        """Tell them; the context is the only argument."""
        # Not as the base class has it: there is no template to render, and a context may be without a DAG.
        self.notify(args[0])

    def notify(self, context: Mapping[str, Any]) -> None:
        """Tell them; never raises."""
        connections = list(self.on_failure)
        if context.get("reason") == REASON_TIMED_OUT and not knows_deadlines():
            connections += [name for name in self.on_deadline if name not in connections]
        if not connections:
            return
        try:
            from dagwright_airflow import channels, notice  # noqa: PLC0415 - only where something is told

            channels.tell(connections, notice.of_failure(context))
        except Exception:
            _log.exception("DW0930: nobody could be told of a run that failed")


async def deadline_missed(connections: Sequence[str], context: Mapping[str, Any] | None = None) -> None:
    """Tell connections that a run was not done by its deadline; never raises."""
    if not connections:
        return
    try:
        from asgiref.sync import sync_to_async  # noqa: PLC0415 - see above

        from dagwright_airflow import channels, notice  # noqa: PLC0415 - see above

        # Hooks block, and the triggerer must not; from a thread of asgiref Airflow finds its way back to the
        # triggerer's loop, where it looks up connections.
        await sync_to_async(channels.tell, thread_sensitive=False)(connections, notice.of_deadline(context or {}))
    except Exception:
        _log.exception("DW0930: nobody could be told of a deadline that was missed")
