# The server image: checkpointd and what it imports, nothing else. No embedded PostgreSQL, no LangGraph, no pip.
#
#   docker build -t checkpointd .
#   docker run -p 50051:50051 -e CHECKPOINTD_DATABASE_URL=postgresql://user:password@host/database checkpointd
FROM python:3.13-slim AS build

WORKDIR /src
COPY protos protos
COPY server server
RUN python -m venv --without-pip /opt/checkpointd \
    && python -m pip --python /opt/checkpointd/bin/python install --no-cache-dir --no-compile ./protos ./server \
    && /opt/checkpointd/bin/python -m compileall -q /opt/checkpointd/lib

FROM python:3.13-slim

COPY --from=build /opt/checkpointd /opt/checkpointd

# In a container the loopback address reaches nobody. Publish the port only where agents are.
ENV PATH=/opt/checkpointd/bin:$PATH \
    CHECKPOINTD_LISTEN=0.0.0.0:50051 \
    CHECKPOINTD_LOG_FORMAT=json

# Nobody in particular: the server owns no file and writes none.
USER 10001:10001
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s CMD ["checkpointd", "health"]
ENTRYPOINT ["checkpointd"]
CMD ["serve"]
