#!/usr/bin/env bash
# Usage: ready.sh [PORT]. Succeeds if a version of the first model of models.config is available; HTTP 200 alone does not
# mean that.
[[ $(<"${BASH_SOURCE%/*}/models.config") =~ name:\ *\"([^\"]+)\" ]] || exit 1
exec 3<>"/dev/tcp/127.0.0.1/${1:-8501}" || exit 1
printf 'GET /v1/models/%s HTTP/1.0\r\n\r\n' "${BASH_REMATCH[1]}" >&3
answer=$(cat <&3)
[[ $answer =~ \"state\":\ *\"AVAILABLE\" ]]
