#!/usr/bin/env bash
# Usage: entrypoint.sh [DIRECTORY]. Starts the server with DIRECTORY/server.flags and passes its exit status on.
# The server has no SIGTERM handler and the kernel ignores the default one for process 1: so this is process 1.
# A signal ends a `wait` early, so it is waited again; until the server is started there is nothing to wait for.
trap 'trap "" TERM INT; kill -TERM $!; wait $!; exit $?' TERM INT
mapfile -t flags < "${1:-/etc/serving}/server.flags" || exit
tensorflow_model_server "${flags[@]}" &
wait $!
