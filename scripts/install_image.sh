#!/bin/sh
# The steps of pipeline/Dockerfile. As root on Debian 13 or Ubuntu 24.04 they run without a container engine, too:
#   sh scripts/install_image.sh tools      what builds: pyfarmhash has no wheel and is compiled
#   sh scripts/install_image.sh lock       every locked package, by its hash
#   sh scripts/install_image.sh gpu        with GPU=yes, the CUDA packages that the locked TensorFlow names; no hashes
#   sh scripts/install_image.sh package    this project
#   sh scripts/install_image.sh runtime    what runs: Python alone, and a user who is not root
set -eu

environment=/opt/tfctr
cd "$(dirname "$0")/.."

packages() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  rm -rf /var/lib/apt/lists/*
}

# Without dependencies, since the lock has them all; with bytecode, since who runs it may not write there.
install() {
  SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-120} \
    "$environment-uv/bin/uv" pip install --quiet --python "$environment/bin/python" --no-deps --no-cache \
    --compile-bytecode "$@"
}

case ${1-} in
  tools)
    packages ca-certificates g++ python3 python3-dev python3-venv
    ;;
  lock)
    # uv, which installs, is no part of what is installed.
    python3 -m venv "$environment-uv"
    "$environment-uv/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check "uv>=0.9,<1"
    python3 -m venv --without-pip "$environment"
    install --require-hashes --build-constraints requirements.lock -r requirements.lock
    ;;
  gpu)
    if [ "${GPU-}" = yes ]; then
      # What is locked stays as it is; pyproject.toml, if it lies here, would leave the extra out.
      "$environment-uv/bin/uv" pip freeze --python "$environment/bin/python" >/tmp/locked.txt
      SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-120} \
        "$environment-uv/bin/uv" pip install --quiet --no-config --no-cache --python "$environment/bin/python" \
        --constraints /tmp/locked.txt "tensorflow[and-cuda]"
    fi
    ;;
  package)
    # setuptools is locked too, so nothing comes from the network. In a directory, and so a layer, of its own.
    install --no-build-isolation --target "$environment-code" .
    ;;
  runtime)
    packages ca-certificates python3
    useradd --uid 65532 --create-home tfctr
    ;;
  *)
    echo "error: the step must be tools, lock, gpu, package or runtime. Received: ${1-nothing}" >&2
    exit 2
    ;;
esac
