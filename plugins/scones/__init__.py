"""Scones ML: the Airflow side, a wing for each stage; `docs/architecture.md` shows them and their order."""
