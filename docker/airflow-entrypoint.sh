#!/bin/sh
# Chooses the executor by what is up: where the profile `celery` brought Redis (compose waits for it first), tasks go to
# the workers; else they run beside the scheduler. AIRFLOW_EXECUTOR overrides both.
set -eu
if [ -z "${AIRFLOW__CORE__EXECUTOR:-}" ]; then
  if [ -n "${AIRFLOW_EXECUTOR:-}" ]; then
    export AIRFLOW__CORE__EXECUTOR="$AIRFLOW_EXECUTOR"
  elif getent hosts redis >/dev/null 2>&1; then
    export AIRFLOW__CORE__EXECUTOR=CeleryExecutor
  else
    export AIRFLOW__CORE__EXECUTOR=LocalExecutor
  fi
fi
exec "$@"
