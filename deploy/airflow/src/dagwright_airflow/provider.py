"""What Airflow's list of providers shows of this package, and the settings it thereby has in `airflow.cfg`."""

from __future__ import annotations

from typing import Any

_VERSION = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Return this package's entry, after Airflow's schema for them."""
    return {
        "package-name": "dagwright-airflow",
        "name": "Dagwright",
        "description": "Runs the tasks of Dagwright's plans, and tells Dagwright how they go.",
        "versions": [_VERSION],
        "extra-links": ["dagwright_airflow.links.DagwrightLink"],
        "config": {
            "dagwright": {
                "description": "Where tasks of Dagwright find things, and where its daemon is.",
                "options": {
                    "base": _option("Folder that relative paths of a spec start from.", "/srv/data"),
                    "staging": _option(
                        "Folder or URI for staged data; every worker must reach it.", "s3://etl/staging"
                    ),
                    "quarantine": _option("Folder or URI for rejected rows.", "s3://etl/quarantine"),
                    "task_command": _option("The program that runs tasks.", "/opt/dagwright/bin/dagwright-task"),
                    "url": _option(
                        "The daemon, as people reach it; links on tasks lead there.", "https://dagwright.example.org"
                    ),
                    "feedback_url": _option(
                        "The daemon, as the scheduler and workers reach it; events are posted there.",
                        "https://dagwright.example.org/api/v1/feedback",
                    ),
                    "feedback_secret": _option(
                        "What events are signed with: whsec_ and 24 to 64 bytes in base64.", None, sensitive=True
                    ),
                    "feedback_spool": _option(
                        "Folder for events until the daemon has taken them.", "/var/spool/dagwright"
                    ),
                    "ca": _option(
                        "File with the authorities that the daemon's certificate is checked against.", "/etc/ca.crt"
                    ),
                },
            },
        },
    }


def _option(description: str, example: str | None, *, sensitive: bool = False) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": _VERSION,
        "type": "string",
        "example": example,
        "default": None,
        "sensitive": sensitive,
    }
