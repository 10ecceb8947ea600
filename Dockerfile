# One image, two programs: `sidecar run` (the proxy, the default) and `sidecar agent run`.
#
#   docker build -t sidecar .
#   docker run --read-only --cap-drop ALL --tmpfs /run/sidecar:uid=65532 -v ./sidecar.yaml:/etc/sidecar/sidecar.yaml:ro sidecar
#
# Every installed file is checked against the hash in its lock. The final stage runs nothing while it is built, has no
# compiler, no pip and no writable directory but /run/sidecar and /var/lib/sidecar, and belongs to an unprivileged user.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1
SHELL ["/bin/sh", "-eu", "-c"]
WORKDIR /src

# The dependencies first: this layer changes only when a lock does.
COPY requirements.txt requirements-build.txt ./
RUN python3 -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes --only-binary :all: -r requirements-build.txt \
 && python3 -m venv --without-pip /opt/sidecar \
 && /opt/build/bin/python -m pip --python /opt/sidecar install --require-hashes --only-binary :all: -r requirements.txt

COPY pyproject.toml README.md ./
COPY sidecar sidecar
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
 && /opt/build/bin/python -m pip --python /opt/sidecar install --no-deps --no-index /wheels/sidecar-*.whl \
 && mkdir -p /rootfs/run/sidecar /rootfs/var/lib/sidecar /rootfs/etc/sidecar

# The backup engine, as Debian builds it: one file, and nothing of the package manager comes along.
FROM python:3.11-slim-bookworm AS restic
SHELL ["/bin/sh", "-eu", "-c"]
RUN apt-get update \
 && apt-get install -y --no-install-recommends "restic=0.14.0-*" \
 && rm -rf /var/lib/apt/lists/*

# PostgreSQL's client programs for its backups, with those of their libraries that the base does not have.
FROM python:3.11-slim-bookworm AS postgres
SHELL ["/bin/bash", "-eu", "-o", "pipefail", "-c"]
RUN find /usr/lib -name '*.so*' | sort > /base-has \
 && apt-get update \
 && apt-get install -y --no-install-recommends "postgresql-client-15=15.*" \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir /rootfs \
 && cp --parents -t /rootfs /usr/lib/postgresql/15/bin/{pg_basebackup,pg_receivewal,pg_verifybackup,psql} \
 && ldd /rootfs/usr/lib/postgresql/15/bin/* | sed -n 's|.*=> /\(usr/\)\?\(lib/[^ ]*\) .*|/usr/\2|p' | sort -u \
  | comm -23 - /base-has | xargs -r cp --parents --dereference --target-directory /rootfs

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="sidecar" \
      org.opencontainers.image.description="A reverse proxy next to every service, and a backup agent that proves its backups restore" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build --chown=65532:65532 /rootfs/ /
COPY --from=build /opt/sidecar /opt/sidecar
COPY --from=restic /usr/bin/restic /usr/bin/restic
COPY --from=postgres /rootfs/ /
ENV PATH=/opt/sidecar/bin:/usr/lib/postgresql/15/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["sidecar"]
CMD ["run"]
