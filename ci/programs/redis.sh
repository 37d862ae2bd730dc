#!/bin/sh
# A redis server on a socket of its own, loaded by redis-benchmark; ends with the server's status.
set -eu
socket=$(mktemp -u /tmp/redis-XXXXXX)
redis-server --port 0 --unixsocket "$socket" --save '' --appendonly no --dir /tmp >/dev/null &
server=$!
tries=0
until redis-cli -s "$socket" ping >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -gt 500 ]; then echo "redis-server does not answer on $socket" >&2; exit 1; fi
  sleep 0.02
done
# Keys of which each is met about twice, and values from a few bytes to what no size class has.
load() { redis-benchmark -s "$socket" -q -P 16 -c 20 -r 100000 "$@" >/dev/null; }
load -n 200000 -d 48 -t set,get,hset,zadd
load -n 100000 -d 700 -t set,rpush,lpop
load -n 10000 -d 9000 -t set,get
redis-cli -s "$socket" shutdown nosave >/dev/null 2>&1 || true
wait "$server"
