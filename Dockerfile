FROM python:3.12-slim

# An account of its own: embedded Postgres refuses root, and nothing else here needs it.
RUN useradd --create-home --home-dir /var/lib/retentiond --uid 10001 retentiond

WORKDIR /src
COPY pyproject.toml LICENSE ./
COPY README.md* ./
COPY retentiond ./retentiond
RUN pip install --no-cache-dir '.[embedded,inventory]' && rm -rf /src

USER retentiond
WORKDIR /var/lib/retentiond
ENTRYPOINT ["retentiond"]
CMD ["run"]
