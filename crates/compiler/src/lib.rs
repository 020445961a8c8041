//! Sealed plan and target to Airflow DAG files; pure.
