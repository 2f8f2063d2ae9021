#!/bin/sh
# One shot before every start: refuse unsafe settings, migrate, create the user and the pools. Safe to run again.
set -eu

case "${SCONES_HOST:-127.0.0.1}" in
  127.*|localhost|::1) ;;
  *)
    if [ "${SCONES_ADMIN_PASSWORD}" = admin ]; then
      echo "SCONES_HOST=${SCONES_HOST} can be reached from other machines, and SCONES_ADMIN_PASSWORD is the default." >&2
      echo "Set a password of your own in .env first." >&2
      exit 1
    fi ;;
esac

airflow db migrate
if airflow users list --output plain | awk 'NR > 1 { print $2 }' | grep -qx "$SCONES_ADMIN_USER"; then
  airflow users reset-password --username "$SCONES_ADMIN_USER" --password "$SCONES_ADMIN_PASSWORD"
else
  airflow users create --role Admin --username "$SCONES_ADMIN_USER" --password "$SCONES_ADMIN_PASSWORD" \
    --firstname Scones --lastname Admin --email "$SCONES_ADMIN_USER@localhost"
fi
airflow pools import /opt/scones/plugins/scones/pools.json
echo "Ready: the database is migrated, the user ${SCONES_ADMIN_USER} and the pools exist."
