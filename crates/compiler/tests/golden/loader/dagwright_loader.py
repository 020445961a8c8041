"""The DAGs that Dagwright deployed to this folder, as dagwright_index.json lists them; change no file by hand."""

from dagwright_airflow.loader import load

# Has Airflow parse this file when the index changes: 836e223e7a9e.
load(__file__, globals())
