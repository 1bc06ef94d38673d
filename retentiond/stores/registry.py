"""The table of store kinds: a new store is one folder and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from retentiond.stores.cloudwatch.config import CloudwatchTarget
from retentiond.stores.config import TargetConfig
from retentiond.stores.files.config import FilesTarget
from retentiond.stores.loki.config import LokiTarget
from retentiond.stores.opensearch.config import OpenSearchTarget
from retentiond.stores.postgres.config import PostgresTarget
from retentiond.stores.s3.config import S3Target
from retentiond.stores.victorialogs.config import VictoriaLogsTarget

CONFIG_MODELS: Final[Mapping[str, type[TargetConfig]]] = MappingProxyType(
    {
        "postgres": PostgresTarget,
        "s3": S3Target,
        "cloudwatch": CloudwatchTarget,
        "files": FilesTarget,
        "opensearch": OpenSearchTarget,
        "elasticsearch": OpenSearchTarget,
        "victorialogs": VictoriaLogsTarget,
        "loki": LokiTarget,
    }
)


def config_model(kind: str) -> type[TargetConfig] | None:
    """The configuration model of a store kind; None where there is no such kind."""
    return CONFIG_MODELS.get(kind)
