#!/usr/bin/env bash
# Usage: entrypoint.sh [DIRECTORY]. Starts the server with DIRECTORY/server.flags and returns its exit status.
# The server has no SIGTERM handler, and the kernel does not kill process 1 by default, so this script is process 1.
# A signal interrupts `wait`, so the trap waits again. Before the server is started there is nothing to wait for.
trap 'trap "" TERM INT; kill -TERM $!; wait $!; exit $?' TERM INT
mapfile -t flags < "${1:-/etc/serving}/server.flags" || exit
tensorflow_model_server "${flags[@]}" &
wait $!
