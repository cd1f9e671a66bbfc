# The pages and the command line, without networks (torch). The tables are fetched, and a model is
# trained on them, at the first start; both are kept in the volume.
#
#   docker build --tag crosspatch .
#   docker run --publish 127.0.0.1:8700:8700 --volume crosspatch:/cache crosspatch
#   docker run --rm --volume crosspatch:/cache --volume "$PWD:/cells" crosspatch \
#     crosspatch predict one.abf --species mouse --out one.csv
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/crosspatch && \
    /opt/crosspatch/bin/pip install --no-cache-dir --constraint constraints.txt ".[formats,serve]"

FROM python:${PYTHON}-slim
# LightGBM is compiled for it.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends libgomp1=* && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 10001 --create-home crosspatch && \
    install --directory --owner crosspatch /cache /cells
COPY --from=build /opt/crosspatch /opt/crosspatch
ENV PATH=/opt/crosspatch/bin:$PATH \
    XDG_CACHE_HOME=/cache \
    NUMBA_CACHE_DIR=/cache/numba
USER 10001
WORKDIR /cells
VOLUME /cache
EXPOSE 8700
# Beyond this machine it demands a token: CROSSPATCH_TOKEN, or one that is made up and printed.
CMD ["sh", "-c", "crosspatch fetch tables && exec crosspatch serve --host 0.0.0.0"]
