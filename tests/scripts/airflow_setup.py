"""Fills the database of a test's Airflow: a connection `here`, and in Airflow 2 the users `admin` and `viewer`.

The argument names a file with the users' passwords. The users of Airflow 3 stand in its settings.
"""

import json
import sys
from pathlib import Path

from airflow import __version__
from airflow.models.connection import Connection
from airflow.utils.session import create_session

with create_session() as session:
    session.add(Connection(conn_id="here", conn_type="fs", host="nowhere", extra=json.dumps({"path": "/"})))

if __version__.startswith("2."):
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        builder.sm.sync_roles()  # A new database has no role but Admin.
        for name, password in json.loads(Path(sys.argv[1]).read_text()).items():
            role = builder.sm.find_role(name.capitalize())
            if not builder.sm.add_user(name, name, "test", f"{name}@example.org", role, password=password):
                sys.exit(f"could not make user {name}")
