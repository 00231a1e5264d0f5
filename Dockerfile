# wasm-mirror as an image: docs/installing.md says how it is built and run.
#
# Two stages make it: `build` installs the locked packages into a virtual environment, and compiles them; `root` is the
# base without what only installing needs. What is left of both becomes one layer.
#
# BASE is any image of Debian's family that has Python 3.11 or newer, with venv and pip.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
SHELL ["/bin/sh", "-eu", "-c"]
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements.lock runtime.lock ./
# For a package index, or an authority, of your own: --secret id=pip,src=pip.conf --secret id=ca,src=ca.pem. Nothing of
# them gets into the image.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    python3 -m venv --without-pip /opt/wasm-mirror; \
    python3 -m pip --python /opt/wasm-mirror/bin/python install --no-compile --only-binary :all: --require-hashes -r runtime.lock; \
    sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock > tools.lock; \
    python3 -m venv --without-pip tools; \
    python3 -m pip --python tools/bin/python install --no-compile --only-binary :all: --require-hashes -r tools.lock
COPY pyproject.toml README.md LICENSE ./
COPY mirror mirror
ARG SOURCE_DATE_EPOCH=0
RUN python3 -m pip --python tools/bin/python wheel --no-deps --no-build-isolation --wheel-dir dist .; \
    python3 -m pip --python /opt/wasm-mirror/bin/python install --no-compile --no-index --no-deps dist/*.whl
WORKDIR /opt/wasm-mirror
# Kubernetes' client has a hundred megabytes of code for objects that the mirror reads as plain JSON, and for a second
# client. Compiled files that are never held against their sources are good whatever becomes of the times of the files.
# The package of these objects is imported all the same, and may be empty.
RUN rm -r lib/python3*/site-packages/kubernetes/aio lib/python3*/site-packages/kubernetes/client/api \
      lib/python3*/site-packages/kubernetes/client/models/[!_]* lib/python3*/site-packages/*/direct_url.json; \
    truncate -s 0 lib/python3*/site-packages/kubernetes/client/models/__init__.py; \
    bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash lib

FROM ${BASE} AS root
SHELL ["/bin/sh", "-eu", "-c"]
RUN stdlib="$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"; \
    for folder in "$stdlib/site-packages" /usr/lib/python3/dist-packages; do \
      rm -rf "$folder"/pip "$folder"/pip-* "$folder"/setuptools "$folder"/setuptools-* "$folder"/wheel \
        "$folder"/wheel-* "$folder"/pkg_resources "$folder"/_distutils_hack "$folder"/distutils-precedence.pth; \
    done; \
    for module in ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo; do rm -rf "${stdlib:?}/$module"; done; \
    rm -rf /usr/bin/pip* /usr/local/bin/pip* /usr/local/bin/wheel* /usr/share/python-wheels /usr/lib/*/gconv \
      /var/cache/* /var/lib/apt/lists/* /var/log/* /tmp/*; \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$stdlib"; \
    find / -xdev -type f -perm /6000 -exec chmod ug-s {} +; \
    echo 'wasm-mirror:x:65532:65532::/nonexistent:/usr/sbin/nologin' >> /etc/passwd; \
    echo 'wasm-mirror:x:65532:' >> /etc/group; \
    install -d -o 65532 -g 0 -m 0770 /var/lib/wasm-mirror
COPY --from=build /opt/wasm-mirror /opt/wasm-mirror
COPY config/minimal.yaml /etc/wasm-mirror/wasm-mirror.yaml

FROM scratch
# hadolint ignore=DL3067 # the whole of it is meant: what `root` has removed would still be in the layers of its base
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
