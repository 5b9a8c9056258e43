# The server image: checkpointd and what it imports, nothing else. No embedded PostgreSQL, no LangGraph, no pip.
#
#   docker build -t checkpointd .
#   docker run -p 50051:50051 -v ./secrets:/secrets:ro \
#     -e CHECKPOINTD_DATABASE_URL=postgresql://user:password@host/database \
#     -e CHECKPOINTD_TLS_CERT=/secrets/tls.crt -e CHECKPOINTD_TLS_KEY=/secrets/tls.key \
#     -e CHECKPOINTD_KEYS_FILE=/secrets/keys.toml checkpointd
FROM python:3.13-slim AS build

WORKDIR /src
COPY protos protos
COPY server server
# Everything that is downloaded is pinned, with the hashes of its files: server/*constraints.txt, made by `make pins`.
RUN python -m venv builder \
    && builder/bin/python -m pip install --no-cache-dir --require-hashes -r server/build-constraints.txt \
    && builder/bin/python -m pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation -w wheels ./protos ./server
RUN python -m venv --without-pip /opt/checkpointd \
    && python -m pip --python /opt/checkpointd/bin/python install --no-cache-dir --no-compile --require-hashes \
        -r server/constraints.txt \
    && python -m pip --python /opt/checkpointd/bin/python install --no-cache-dir --no-compile --no-index --no-deps \
        wheels/*.whl \
    && python -m pip --python /opt/checkpointd/bin/python check \
    && /opt/checkpointd/bin/python -m compileall -q /opt/checkpointd/lib

FROM python:3.13-slim

COPY --from=build /opt/checkpointd /opt/checkpointd

# In a container the loopback address reaches nobody. On this one the server wants TLS and tokens, or to be told in so many
# words that something else protects it. Health alone is served without either, to the container itself.
ENV PATH=/opt/checkpointd/bin:$PATH \
    CHECKPOINTD_LISTEN=0.0.0.0:50051 \
    CHECKPOINTD_HEALTH_LISTEN=127.0.0.1:50052 \
    CHECKPOINTD_LOG_FORMAT=json

# Nobody in particular: the server owns no file and writes none.
USER 10001:10001
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s CMD ["checkpointd", "health"]
ENTRYPOINT ["checkpointd"]
CMD ["serve"]
