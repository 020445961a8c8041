#!/usr/bin/env bash
# Makes a role and a database of its own for Airflow, and for what pipelines load; run once, on an empty PostgreSQL.
set -euo pipefail
for name in airflow warehouse; do
    # Quoting is psql's: a password may hold anything.
    psql --set=ON_ERROR_STOP=1 --username=postgres --set=name="$name" --set=password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
SQL
done
