"""The DAGs that Dagwright deployed to this folder, as dagwright_index.json lists them; change no file by hand."""

from dagwright_airflow.loader import load

load(__file__, globals())
