#!/usr/bin/env bash
# Usage: ready.sh MODEL [PORT]. Succeeds if a version is available; HTTP 200 alone does not mean that.
exec 3<>"/dev/tcp/127.0.0.1/${2:-8501}" || exit 1
printf 'GET /v1/models/%s HTTP/1.0\r\n\r\n' "$1" >&3
answer=$(cat <&3)
[[ $answer =~ \"state\":\ *\"AVAILABLE\" ]]
