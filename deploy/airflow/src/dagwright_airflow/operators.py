"""Operators: one for each kind of task, all of which run `dagwright-task`.

No field of theirs is a template. They are given the name of the plan file, and read from it what to do.

What is needed to run a task is imported when one runs: Airflow parses DAG files much more often than that, each in a
process of its own.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dagwright_airflow import links
from dagwright_airflow.compat import AirflowException, AirflowFailException, BaseOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dagwright_airflow.compat import BaseOperatorLink
    from dagwright_airflow.plan import Plan
    from dagwright_airflow.process import Result, TaskProcess

_log = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_SOURCE_UNAVAILABLE = 11
EXIT_SINK_UNAVAILABLE = 12
EXIT_CANCELLED = 17
# What a process that SIGKILL ended is said to have returned.
_KILLED = -9

# The codes by which `dagwright-task` says that trying again is no use.
_EXITS_FINAL = {
    10: "its task is not valid",
    13: "a schema drifted from the sealed plan",
    14: "a quality gate failed",
    15: "it ran out of its memory budget",
    16: "a permission is missing",
    EXIT_CANCELLED: "it was cancelled",
    18: "the data cannot be processed",
    19: "a connection points elsewhere than the plan was sealed for",
}


class DagwrightOperator(BaseOperator):
    """Runs the task of a sealed plan that has this operator's `task_id`.

    :param plan: the plan file: its name where it is beside the DAG file, else its path.
    :param partition: the partition of a mapped task.
    """

    template_fields: Sequence[str] = ()
    operator_extra_links: Collection[BaseOperatorLink] = (links.DagwrightLink(),)
    ui_color = "#e3eef5"

    # The kinds of work that this class runs.
    kinds: ClassVar[frozenset[str]] = frozenset({"split", "move", "publish", "cleanup"})

    # For who looks at the task when it has run: the listener, and the link. Here and not in the constructor, as Airflow
    # looks at each attribute that is set there, for every task that is parsed.
    counts: dict[str, Any] | None = None
    explain_url: str | None = None
    partition: dict[str, Any] | None = None
    _process: TaskProcess | None = None

    def __init__(self, *, plan: str, partition: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        if partition is not None:
            self.partition = partition

    def execute(self, context: Mapping[str, Any]) -> Any:
        """Run the task and return what it counted.

        Raises:
            AirflowFailException: it failed for good.
            AirflowException: it failed, and may succeed when tried again.

        """
        try:
            return self._run(context)
        except AirflowException as error:
            _leave_code(context, error)
            raise

    def _run(self, context: Mapping[str, Any]) -> Any:
        from dagwright_airflow.process import TaskProcess  # noqa: PLC0415 - see above

        command, task_run, env = self._prepare(context)
        try:
            self._process = TaskProcess(command, env, self.log)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise AirflowFailException(f"DW0705: {command} could not be started ({reason})") from error
        result = self._process.follow(task_run)
        outcome = self._outcome(result)
        self.counts = outcome["counts"]
        self._tell_assets(context)
        return self.returned(outcome, context)

    def on_kill(self) -> None:
        """End the task: its lease first, then the process."""
        if self._process is not None:
            self._process.stop()

    def returned(self, outcome: dict[str, Any], context: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Return what goes to XCom."""
        return outcome["counts"]

    def partition_in(self, context: Mapping[str, Any], sealed: Plan) -> dict[str, Any] | None:  # noqa: ARG002
        """Return the partition that the task is told of."""
        return self.partition

    def plan_path(self) -> Path:
        """Return where the plan file is on this machine.

        Raises:
            PlanError: it is said to be beside the DAG file, and there is none.

        """
        from dagwright_airflow.plan import PlanError  # noqa: PLC0415 - see above

        path = Path(self.plan)
        if path.is_absolute():
            return path
        dag = self.get_dag()
        if dag is None or not dag.fileloc:
            raise PlanError(f"{path.name} is said to be beside a DAG file, but its task belongs to no DAG")
        return Path(dag.fileloc).with_name(path.name)

    def _prepare(self, context: Mapping[str, Any]) -> tuple[str, str, dict[str, str]]:
        """Return the command, the task run as JSON, and the environment."""
        from dagwright_airflow import connections, plan, run, settings  # noqa: PLC0415 - see above

        try:
            sealed = plan.read(self.plan_path())
            spec = sealed.task(self.task_id)
        except plan.PlanError as error:
            raise AirflowFailException(f"DW0120: {error}") from error
        if spec["work"]["kind"] not in self.kinds:
            raise AirflowFailException(
                f"DW0120: {type(self).__name__} does not run work of kind {spec['work']['kind']!r}"
            )
        command = settings.command()
        if command is None:
            raise AirflowFailException(
                f"DW0705: {settings.COMMAND} was not found; install it on this worker's PATH or set "
                "DAGWRIGHT_TASK_COMMAND to its path"
            )
        try:
            partition = self.partition_in(context, sealed)
            context_of_run = run.run_context(context, sealed, self.retries or 0, partition)
            self.explain_url = links.explain_url(context["dag_run"])
        except run.RunError as error:
            raise AirflowFailException(f"DW0120: {error}") from error
        if self.explain_url is not None:
            # Now, so that the link leads somewhere while the task runs.
            context["ti"].xcom_push(key=links.XCOM_KEY, value=self.explain_url)
        try:
            env = connections.environment(spec["connections"])
        except connections.ConnectionMissingError as error:
            raise AirflowFailException(f"DW0601: {error}") from error
        return command, plan.dumps({"task": spec, "run": context_of_run}), env

    def _tell_assets(self, context: Mapping[str, Any]) -> None:
        """Put what was counted into the events of the assets that this task updates.

        An asset named after a sink (`dagwright://<pipeline>/<sink>`) is told of that sink alone.
        """
        counts = self.counts or {}
        for outlet in self.outlets or ():
            uri = getattr(outlet, "uri", None)
            if not isinstance(uri, str):
                continue
            sinks = counts.get("sinks") or {}
            sink = uri.rsplit("/", 1)[-1]
            told = {**counts, "sinks": {sink: sinks[sink]}} if sink in sinks else counts
            context["outlet_events"][outlet].extra["dagwright_counts"] = told

    def _outcome(self, result: Result) -> dict[str, Any]:
        """Return the outcome of a task that succeeded; raise what Airflow should do about any other."""
        from dagwright_airflow import plan, settings  # noqa: PLC0415 - see above
        from dagwright_airflow.process import describe  # noqa: PLC0415

        outcome, exit_code = result.outcome, result.exit_code
        if exit_code == EXIT_DONE and outcome is not None and outcome.get("status") == "succeeded":
            if outcome.get("repeated"):
                self.log.info("done by an earlier try; its counts follow")
            self.log.info("counts: %s", plan.dumps(outcome["counts"]))
            return outcome
        if result.stopped:
            raise AirflowException(f"DW0605: stopped by Airflow (exit code {exit_code})")
        problem = (outcome or {}).get("problem")
        if exit_code in (EXIT_SOURCE_UNAVAILABLE, EXIT_SINK_UNAVAILABLE):
            side = "source" if exit_code == EXIT_SOURCE_UNAVAILABLE else "sink"
            raise AirflowException(describe(problem) if problem else f"a {side} is not available")
        if exit_code in _EXITS_FINAL:
            raise AirflowFailException(describe(problem) if problem else _EXITS_FINAL[exit_code])
        if exit_code == _KILLED:
            # As by the system when memory runs out.
            raise AirflowException(f"DW0607: {settings.COMMAND} was killed (signal 9)")
        # Ended by another signal, or without a word.
        raise AirflowException(f"DW0603: {settings.COMMAND} ended without an outcome (exit code {exit_code})")


def _leave_code(context: Mapping[str, Any], error: AirflowException) -> None:
    """Leave the code of a failure where who tells people of the run finds it; Airflow keeps no text of it there."""
    from dagwright_airflow import notice  # noqa: PLC0415 - where something failed

    code = notice.code_of(error)
    if code is None:
        return
    try:
        context["ti"].xcom_push(key=notice.CODE_KEY, value=code)
    except Exception as problem:
        # The failure itself is what counts.
        _log.warning("could not leave the code of a failure in XCom (%s)", type(problem).__name__)


class DagwrightExtract(DagwrightOperator):
    """Reads sources into the staging area."""

    ui_color = "#dcefe1"
    kinds = frozenset({"move"})


class DagwrightTransform(DagwrightOperator):
    """Computes steps."""

    ui_color = "#f4ecd8"
    kinds = frozenset({"move"})


class DagwrightLoad(DagwrightOperator):
    """Writes sinks; where nothing is staged, it reads and computes as well."""

    ui_color = "#dde7f6"
    kinds = frozenset({"move"})


class DagwrightSplit(DagwrightOperator):
    """Finds the partitions of a source; returns them, for tasks to be mapped over."""

    ui_color = "#ece4f3"
    kinds = frozenset({"split"})

    def returned(self, outcome: dict[str, Any], context: Mapping[str, Any]) -> Any:
        """Return the partitions; the counts have a key of their own."""
        partitions = outcome.get("partitions") or []
        if not partitions:
            # Airflow would skip everything mapped over an empty list, and call the run a success.
            raise AirflowFailException("DW0799: a split returned no partition")
        context["ti"].xcom_push(key="counts", value=outcome["counts"])
        return partitions


class DagwrightPublish(DagwrightOperator):
    """Makes what mapped tasks staged visible, in one instant."""

    ui_color = "#dde7f6"
    kinds = frozenset({"publish"})

    def partition_in(self, context: Mapping[str, Any], sealed: Plan) -> dict[str, Any] | None:
        """Return any of the partitions: its count says how many must have been staged."""
        split = sealed.split_before(self.task_id)
        partitions = context["ti"].xcom_pull(task_ids=split) if split else None
        return partitions[0] if partitions else None


class DagwrightCleanup(DagwrightOperator):
    """Removes what a run staged."""

    ui_color = "#eeeeee"
    kinds = frozenset({"cleanup"})


class DagwrightUnreadable(DagwrightOperator):
    """Fails, and says why; stands where the tasks of a plan would that cannot be read (see `loader`).

    :param reason: why it cannot.
    """

    ui_color = "#f6dddd"
    kinds = frozenset()

    def __init__(self, *, reason: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reason = reason

    def execute(self, context: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Fail.

        Raises:
            AirflowFailException: always.

        """
        raise AirflowFailException(f"DW0120: {self.reason}")
