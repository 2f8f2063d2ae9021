"""Scones ML: the Airflow side. `core` thinks, `hooks` talk to AWS, `operators` and `tasks` decide, `dags/` arranges."""
