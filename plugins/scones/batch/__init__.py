"""Batch inference without AWS or Airflow: what to score, under which names, how fast, and what came of it."""
