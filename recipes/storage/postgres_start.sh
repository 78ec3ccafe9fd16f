#!/bin/sh
# postgres_start.sh OPTION...: make the database at the first start, run it, and end it fast when told to end.
set -eu
umask 077

# PostgreSQL refuses to run as root, which only root's own jobs do
as=
if [ "$(id -u)" = 0 ]; then
    chown postgres "${PGDATA%/*}"
    as="setpriv --reuid=postgres --regid=postgres --clear-groups --"
fi

if [ ! -e "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?a password is needed: name its file in password_file}"
    password=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
    [ -z "$as" ] || chown postgres "$password"
    # under another name until it is whole: a first start may be cut short
    rm -rf "$PGDATA.new"
    $as initdb --pgdata="$PGDATA.new" --username="$POSTGRES_USER" --pwfile="$password" \
        --auth=scram-sha-256 --encoding=UTF8 --locale=C
    rm "$password"
    echo "host all all all scram-sha-256" >>"$PGDATA.new/pg_hba.conf"
    if [ "$POSTGRES_DB" != postgres ]; then
        echo "CREATE DATABASE \"$POSTGRES_DB\"" | $as postgres --single -D "$PGDATA.new" -j postgres
    fi
    mv "$PGDATA.new" "$PGDATA"
fi
unset POSTGRES_PASSWORD

# left by a server that was killed; that none else runs, the volume's lock says
rm -f "$PGDATA/postmaster.pid"

# TERM would let it wait for its clients to leave; INT is its fast end
$as postgres -D "$PGDATA" "$@" &
server=$!
trap 'kill -INT "$server"' TERM INT
code=0
wait "$server" || code=$?
while kill -0 "$server" 2>/dev/null; do
    code=0
    wait "$server" || code=$?
done
exit "$code"
