# wasm-mirror as an image: docs/installing.md says how it is built and run.
#
# Two stages make it. `build` installs the locked packages into a virtual environment, and compiles them; `root` is the base
# without what only installing needs. Both together are the one layer that is left.
#
# BASE is any image of Debian's family with python3 (3.11 or newer), venv and pip.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
SHELL ["/bin/sh", "-eu", "-c"]
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY requirements.lock runtime.lock ./
# A package index, an authority or a proxy of your own: --secret id=pip,src=pip.conf, --secret id=ca,src=ca.pem. Nothing of
# them is in the image.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    python3 -m venv --without-pip /opt/wasm-mirror; \
    python3 -m pip --python /opt/wasm-mirror/bin/python install --only-binary :all: --require-hashes -r runtime.lock; \
    sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock > tools.lock; \
    python3 -m venv --without-pip tools; \
    python3 -m pip --python tools/bin/python install --only-binary :all: --require-hashes -r tools.lock
COPY pyproject.toml README.md LICENSE ./
COPY mirror mirror
ARG SOURCE_DATE_EPOCH=0
# Kubernetes' client has 110 MB of code for kinds of objects that the mirror reads as plain JSON, and a second client.
# Compiled files that nobody compares with their sources stay valid whatever becomes of the times of the files.
RUN python3 -m pip --python tools/bin/python wheel --no-deps --no-build-isolation --wheel-dir dist .; \
    python3 -m pip --python /opt/wasm-mirror/bin/python install --no-index --no-deps dist/*.whl; \
    cd /opt/wasm-mirror/lib/python3*/site-packages; \
    rm -r kubernetes/aio kubernetes/client/api kubernetes/client/models; \
    find /opt/wasm-mirror -name direct_url.json -delete; \
    /opt/wasm-mirror/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash .

FROM ${BASE} AS root
SHELL ["/bin/sh", "-eu", "-c"]
RUN stdlib="$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"; \
    cd "$stdlib"; \
    rm -rf ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo turtle.py; \
    for place in "$stdlib/site-packages" /usr/lib/python3/dist-packages /usr/local/lib/python3*/dist-packages; do \
      rm -rf "$place"/pip "$place"/pip-* "$place"/setuptools "$place"/setuptools-* "$place"/wheel "$place"/wheel-* \
        "$place"/pkg_resources "$place"/_distutils_hack "$place"/distutils-precedence.pth; \
    done; \
    rm -rf /usr/bin/pip* /usr/local/bin/pip* /usr/local/bin/wheel* /usr/share/python-wheels /root/.cache \
      /var/cache/* /var/lib/apt/lists/* /var/log/* /tmp/*; \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$stdlib"; \
    find / -xdev -type f -perm /6000 -exec chmod ug-s {} +; \
    echo 'wasm-mirror:x:65532:65532::/nonexistent:/usr/sbin/nologin' >> /etc/passwd; \
    echo 'wasm-mirror:x:65532:' >> /etc/group; \
    install -d -o 65532 -g 0 -m 0770 /var/lib/wasm-mirror
COPY --from=build /opt/wasm-mirror /opt/wasm-mirror
COPY config/minimal.yaml /etc/wasm-mirror/wasm-mirror.yaml

FROM scratch
COPY --from=root / /
ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="wasm-mirror" \
      org.opencontainers.image.description="A caching OCI pull-through registry mirror for WebAssembly modules in a service mesh" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE}"
ENV PATH=/opt/wasm-mirror/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    WASM_MIRROR_CONFIG=/etc/wasm-mirror/wasm-mirror.yaml \
    WASM_MIRROR_DATA_DIR=/var/lib/wasm-mirror \
    WASM_MIRROR_LISTEN=0.0.0.0:8080
# The group 0 is for platforms that choose the user: OpenShift gives it to whatever user a container runs as.
USER 65532:65532
WORKDIR /var/lib/wasm-mirror
VOLUME /var/lib/wasm-mirror
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["wasm-mirror", "health"]
ENTRYPOINT ["wasm-mirror"]
CMD ["serve"]
