# Two small images: `airflow` (every Airflow component) and `platform` (MiniStack, sagemaker_local, the deployment).
# Built by `docker compose build`; the base image is an argument so that a mirror or a newer Debian can be used.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# Packages are installed where a compiler may be; only the result is copied into the images.
FROM ${BASE_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_COMPILE_BYTECODE_TIMEOUT=600
COPY requirements-setup.txt /build/
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --require-hashes -r /build/requirements-setup.txt

# Left out of both images: the packages' own tests, and headers.
FROM builder AS airflow-packages
COPY requirements-airflow.txt /build/
RUN --mount=type=cache,target=/root/.cache/uv \
    VIRTUAL_ENV=/opt/venv /opt/venv/bin/uv pip install --require-hashes -r /build/requirements-airflow.txt \
    && /opt/venv/bin/python -m pip uninstall --yes uv pip \
    && find /opt/venv/lib/python3.*/site-packages -type d \
       \( -name tests -o -path '*/pyarrow/include' \) -prune -exec rm -rf {} +

FROM builder AS platform-packages
COPY requirements-platform.txt /build/
RUN --mount=type=cache,target=/root/.cache/uv \
    VIRTUAL_ENV=/opt/venv /opt/venv/bin/uv pip install --require-hashes -r /build/requirements-platform.txt \
    && /opt/venv/bin/python -m pip uninstall --yes uv pip \
    && find /opt/venv/lib/python3.*/site-packages -type d -name tests -prune -exec rm -rf {} +

FROM ${BASE_IMAGE} AS base
# Group 0 may write what the user may, so that an arbitrary user id (SCONES_UID) works too.
RUN useradd --uid 50000 --gid 0 --home-dir /opt/scones --no-create-home --shell /usr/sbin/nologin scones \
    && install -d -o scones -g 0 -m 0775 /opt/scones
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/opt/scones
WORKDIR /opt/scones

FROM base AS platform
COPY --from=platform-packages /opt/venv /opt/venv
COPY --chown=scones:0 sagemaker_local ./sagemaker_local
COPY --chown=scones:0 embedded ./embedded
COPY --chown=scones:0 infrastructure ./infrastructure
COPY --chown=scones:0 lambdas ./lambdas
COPY --chown=scones:0 stepfunction.json ./
COPY --chown=scones:0 docker ./docker
# Named volumes take owner and mode from these folders when they are made.
# A checkout made under a strict umask is to be readable for group 0 all the same.
RUN install -d -o scones -g 0 -m 0775 /data && install -d -o scones -g 0 -m 0750 /secrets && chmod -R g=u /opt/scones
VOLUME /data
USER scones
ENTRYPOINT ["/opt/scones/docker/platform-entrypoint.sh"]
CMD ["python", "-m", "embedded.container"]

FROM base AS airflow
COPY --from=airflow-packages /opt/venv /opt/venv
COPY --chown=scones:0 docker ./docker
COPY --chown=scones:0 plugins ./plugins
COPY --chown=scones:0 dags ./dags
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/scones/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/scones/plugins
# Named volumes take owner and mode from these folders when they are made.
RUN install -d -o scones -g 0 -m 0775 /opt/airflow /opt/airflow/logs /var/cache/scones && chmod -R g=u /opt/scones
USER scones
ENTRYPOINT ["/opt/scones/docker/airflow-entrypoint.sh"]
CMD ["airflow", "version"]
