"""A versioned DAG bundle for Airflow 3.x, which the daemon deploys to.

`root` is a folder that the daemon writes and every DAG processor and worker reads: snapshots in `<root>/<version>/`,
named by their content (see `snapshots`), and the name of the one to use in `<root>/CURRENT`. A run stays on the version
it started with, and clearing it later runs that version again, so a snapshot must stay while runs may need it.

Airflow never reads from `root`: each machine has verified copies below `[dag_processor] dag_bundle_storage_path`, where
Airflow itself removes those of versions that were not used for long. Put that folder where only Airflow can write.

    [dag_processor]
    dag_bundle_config_list = [{"name": "dagwright", "classpath": "dagwright_airflow.bundle.DagwrightBundle",
        "kwargs": {"root": "/srv/dagwright/dags"}}]

In 2.11, which has no bundles, this module can be imported, and the class says so when it is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagwright_airflow import snapshots
from dagwright_airflow.snapshots import SnapshotError

if TYPE_CHECKING:
    from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion
else:
    try:
        from airflow.dag_processing.bundles.base import BaseDagBundle
    except ImportError:

        class BaseDagBundle:
            """Stands in for what 2.11 has not."""

            def __init__(self, **_: object) -> None:
                """Refuse."""
                raise SnapshotError("Airflow 2 has no DAG bundles; deploy to its DAG folder")

    try:
        from airflow.dag_processing.bundles.base import BundleVersion
    except ImportError:
        # Before 3.3 a version was its text.
        def BundleVersion(version: str) -> str:  # noqa: D103, N802
            return version


class DagwrightBundle(BaseDagBundle):
    """Snapshots of a folder of DAGs.

    :param root: the folder with the snapshots.
    """

    supports_versioning = True

    def __init__(self, *, root: str, **kwargs: Any) -> None:
        """Use one version, or follow the current one.

        Raises:
            SnapshotError: the version is none, or the root is no absolute path.

        """
        super().__init__(**kwargs)
        self.root = Path(root)
        if not self.root.is_absolute():
            raise SnapshotError(f"the root of bundle {self.name!r} must be an absolute path")
        # It becomes a path below; it comes from the database.
        self._shown = snapshots.checked(self.version) if self.version else None

    def initialize(self) -> None:
        """Copy the version that is to be used.

        Raises:
            SnapshotError: it is missing, or was changed.

        """
        with self.lock():
            if self.version:
                snapshots.copy(self.root, self.version, self.path)
            else:
                self._follow()
        super().initialize()

    @property
    def path(self) -> Path:
        """The folder that Airflow reads DAGs from; empty while nothing was deployed."""
        if self.version:
            return self.versions_dir / self.version
        # The same for all versions: Airflow queues files by it, and parses them when their turn comes.
        return self.base_dir / "current"

    def get_current_version(self) -> BundleVersion | None:
        """Return the version that is shown."""
        return BundleVersion(self._shown) if self._shown else None

    def refresh(self) -> None:
        """Show what `CURRENT` names by now; where that cannot be used, the one before stays.

        Raises:
            SnapshotError: it is missing, or was changed; or this bundle is for one version.

        """
        if self.version:
            raise SnapshotError(f"bundle {self.name!r} is for version {self.version[:12]}, which never changes")
        with self.lock():
            self._follow()

    def _follow(self) -> None:
        wanted = snapshots.current(self.root)
        if wanted is None:
            # Also when it went away: DAGs are removed by a snapshot without them, not by an unmounted disk.
            self.path.mkdir(parents=True, exist_ok=True)
            return
        snapshots.follow(self.root, wanted, self.path)
        self._shown = wanted
