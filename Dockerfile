# The picker's image: a virtual environment built in the first stage, run in the second.
# docs/operations.md tells how to try these steps without a container engine.
ARG PYTHON=3.11

# Not the slim one: this one has a C compiler.
FROM python:${PYTHON} AS build
# pip of the base image installs into the environment, which has none of its own: nothing in it can install anything.
RUN python -m venv --without-pip /app/venv
COPY . /src
RUN pip --disable-pip-version-check --python /app/venv/bin/python install --no-cache-dir --no-compile /src
# Unchecked: the root file system is read-only, and a changed time stamp must not make each start compile all of it.
# The Kubernetes client's API classes are never loaded; their bytecode would be 47 MB.
RUN python -m compileall -q --invalidation-mode unchecked-hash -x '/kubernetes/(aio/)?client/(api|models)/[a-z]' \
    /app/venv/lib
# An image without compiled modules would work, at two to three times the CPU.
RUN /app/venv/bin/python -c 'from epp.compiled import compiled; assert compiled(), "no C compiler: see above"'
RUN ln -s venv/bin/epp /app/epp

FROM python:${PYTHON}-slim
# The base image ships its standard library without bytecode.
RUN python -m compileall -q --invalidation-mode unchecked-hash -x '/(test|idlelib|lib2to3|site-packages)/' \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /app /app
ENV PYTHONDONTWRITEBYTECODE=1
# What container runtimes say for a user without an entry in /etc/passwd; the Kubernetes client wants to know.
ENV HOME=/
WORKDIR /app
# A number, so that runAsNonRoot can be checked. It needs no entry in /etc/passwd, and nothing is written anywhere.
USER 65532:65532
# ext_proc, gRPC health, metrics; 5557 is where manifests of the llm-d router expect KV events, nothing listens there.
EXPOSE 9002 9003 9090 5557
ENTRYPOINT ["/app/epp"]
