# An image for CI systems: flowkiln as it is in this folder, with uv and git.
#
#   docker build --tag flowkiln-ci .
#   docker build --tag flowkiln-ci --build-arg BASE=registry.example.com/python:3.13-slim .
#
# BASE needs Python 3.11 to 3.15 with pip, and git or apt-get. What is installed is what uv.lock pins, by hash, so the
# index may be a mirror. Own certificates: a file ca-bundle.pem in this folder. Neither an index with a password in
# its URL nor that file reaches the image: both stay in the first stage.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
LABEL io.flowkiln.stage=build
ARG PIP_INDEX_URL=https://pypi.org/simple
WORKDIR /build
# the file of certificates may be absent: a pattern may match nothing where another one matches
COPY pyproject.toml uv.lock README.md LICENSE ca-bundle.pem* ./
COPY src src
RUN set -eu; \
    export PIP_INDEX_URL UV_DEFAULT_INDEX="$PIP_INDEX_URL" UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never; \
    if [ -f ca-bundle.pem ]; then export SSL_CERT_FILE=/build/ca-bundle.pem PIP_CERT=/build/ca-bundle.pem; fi; \
    python3 -c 'import tomllib; \
packages = tomllib.load(open("uv.lock", "rb"))["package"]; \
uv = next(one for one in packages if one["name"] == "uv"); \
print("uv==" + uv["version"], *("--hash=" + wheel["hash"] for wheel in uv["wheels"]))' > uv.txt; \
    python3 -m pip install --no-cache-dir --quiet --require-hashes --target uv --requirement uv.txt; \
    PATH="/build/uv/bin:$PATH"; \
    uv build --quiet --wheel --out-dir dist; \
    uv export --quiet --frozen --no-dev --no-emit-project --no-header --output-file requirements.txt; \
    uv venv --quiet --python python3 /opt/flowkiln-ci; \
    uv pip install --quiet --python /opt/flowkiln-ci/bin/python --compile-bytecode \
        --require-hashes --requirement requirements.txt; \
    uv pip install --quiet --python /opt/flowkiln-ci/bin/python --compile-bytecode --no-deps dist/*.whl

FROM ${BASE}
RUN if ! command -v git >/dev/null; then \
        apt-get update --quiet --quiet \
        && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends git \
        && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log; \
    fi
COPY --from=build /opt/flowkiln-ci /opt/flowkiln-ci
# a job may run as any user, with a read-only root: all it needs to write to is /tmp and its checkout
ENV PATH=/opt/flowkiln-ci/bin:${PATH} HOME=/tmp
CMD ["flowkiln", "--help"]
