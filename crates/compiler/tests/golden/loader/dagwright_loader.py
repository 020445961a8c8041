"""The DAGs that Dagwright deployed to this folder, as dagwright_index.json lists them; change no file by hand."""

from dagwright_airflow.loader import load

# Has Airflow parse this file when the index changes: 75c664052958.
load(__file__, globals())
