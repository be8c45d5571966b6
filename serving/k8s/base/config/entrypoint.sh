#!/usr/bin/env bash
# The server has no SIGTERM handler and the kernel ignores the default one for process 1: so this is process 1.
mapfile -t flags < /etc/serving/server.flags
tensorflow_model_server "${flags[@]}" &
trap 'kill -TERM $!' TERM INT
wait $!
